"""Which operators of a block would make the host wait for a device, and the file that asked for them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# The shape of their result, or a number for the host, depends on values.
WAITING = {
    "aten::nonzero",
    "aten::_local_scalar_dense",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::equal",
    "aten::bincount",
    "torchvision::nms",
}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
TORCH = str(Path(torch.__file__).parent) + "/"  # not torchvision


class Stalls(TorchDispatchMode):
    """Counts {(file, operator): calls} of the block in `found`; on a CPU, where nothing really waits.

    The file is the innermost one outside torch. A boolean index counts: it is a `nonzero` on a device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in WAITING or (name in INDEXING and any(_mask(each) for each in args[1])):
            self.found[_caller(), name] += 1
        return func(*args, **(kwargs or {}))

    def inside(self, folder: Path) -> dict[tuple[str, str], int]:
        """What was found in the files of a folder."""
        return {key: count for key, count in self.found.items() if Path(key[0]).is_relative_to(folder)}


def _mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _caller() -> str:
    """The innermost file that is neither this one nor torch's."""
    frame = sys._getframe(1)
    while frame.f_back and (
        frame.f_code.co_filename == __file__ or frame.f_code.co_filename.startswith(TORCH)
    ):
        frame = frame.f_back
    return frame.f_code.co_filename
