"""Operators of a step, and those among them that would make the host wait for a GPU, by source line."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Place = tuple[str, int]  # a file, from its package on, and a line
AUTOGRAD: Place = ("autograd", 0)  # what the backward pass runs by itself, from no line of Python
SELF_WAITING = frozenset(
    {
        "aten::_local_scalar_dense",  # .item(), float(tensor), if tensor:
        "aten::nonzero",
        "aten::masked_select",
        "aten::_unique",
        "aten::_unique2",
        "aten::unique_dim",
        "aten::unique_consecutive",
        "aten::bincount",
        "aten::equal",
        "aten::_linalg_check_errors",
        "torchvision::nms",
    }
)
_NEVER = tuple(  # whose frames are passed over: an operator is charged to who called them
    f"{Path(str(module.__file__)).parent}/" for module in (torch, torchvision)
)
_LIBRARY = (f"{Path(contextlib.__file__).parent}/", f"{sysconfig.get_path('stdlib')}/")


def forces_wait(operator: str, args: Sequence[Any], kwargs: dict[str, Any], result: Any = None) -> bool:
    """Whether the host can't go on before a GPU has finished this operator (`aten::nonzero`, ...).

    Its result's shape or value is needed: reads of a number, boolean indices, NMS, unique; copies from the
    device. Writing one number where a mask holds is no wait, since torch fills in place of indexing.
    On a CPU every tensor passes for one on the device, also the few that stay on the host with a GPU; copies
    to and from the device (`tolist`, `cpu`, `numpy`, pageable memory) are seen on a GPU only.
    """
    if operator in SELF_WAITING:
        return True
    if operator == "aten::repeat_interleave.Tensor":
        return kwargs.get("output_size") is None
    if operator.startswith(("aten::index.Tensor", "aten::_unsafe_index.Tensor")):
        return _has_mask(args[1])
    if operator.startswith(("aten::index_put", "aten::_index_put_impl", "aten::_unsafe_index_put")):
        return _has_mask(args[1]) and not (args[2].dim() == 0 and args[2].numel() == 1)
    if operator in ("aten::_to_copy", "aten::copy_"):
        source = args[0] if operator == "aten::_to_copy" else args[1]
        target = result if isinstance(result, Tensor) else args[0]
        return source.device.type != "cpu" and target.device.type == "cpu"
    return False


def _has_mask(indices: Sequence[Tensor | None]) -> bool:
    return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in indices)


class OperatorCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A block in which every operator is counted: calls {name: n}, waits {(name, file, line): n}.

    An operator is charged to the innermost line of Python outside torch, torchvision and Python's own
    library; what autograd runs, to `AUTOGRAD`, except for backward functions that are written in Python.
    files: calls by file.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.files: Counter[str] = Counter()
        self.waits: Counter[tuple[str, str, int]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name: str = func.name()
        file, line = place_of(sys._getframe(1))
        self.calls[name] += 1
        self.files[file] += 1
        if forces_wait(name, args, kwargs or {}, result):
            self.waits[name, file, line] += 1
        return result

    def report(self) -> dict[str, Any]:
        """What was counted, as JSON has it; places with the most waits first."""
        by_file: Counter[str] = Counter()
        by_operator: Counter[str] = Counter()
        for (name, file, _), count in self.waits.items():
            by_file[file] += count
            by_operator[name] += count
        return {
            "operators": self.calls.total(),
            "operators_by_source": _by_package(self.files),
            "operators_by_file": dict(self.files.most_common()),
            "waits": {
                "total": self.waits.total(),
                "by_source": _by_package(by_file),
                "by_file": dict(by_file.most_common()),
                "by_operator": dict(by_operator.most_common()),
                "places": [
                    {"operator": name, "file": file, "line": line, "count": count}
                    for (name, file, line), count in self.waits.most_common()
                ],
            },
        }


def _by_package(files: Counter[str]) -> dict[str, int]:
    """Counts by file as counts by package (`ssod`, `mmdet`, ..., `autograd`), the largest first."""
    packages: Counter[str] = Counter()
    for file, count in files.items():
        packages[file.partition("/")[0]] += count
    return dict(packages.most_common())


def place_of(frame: FrameType | None) -> Place:
    """The innermost place of a stack that `OperatorCounter` charges."""
    while frame is not None:
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "_engine_run_backward" and file.startswith(_NEVER):
            return AUTOGRAD
        if not _is_passed_over(file):
            return _from_package(file), frame.f_lineno
        frame = frame.f_back
    return "unknown", 0


@cache
def _is_passed_over(file: str) -> bool:
    own = file.startswith(_LIBRARY) and "site-packages" not in file
    return own or file.startswith(("<", *_NEVER)) or file == __file__


@cache
def _from_package(file: str) -> str:
    """A path from the topmost folder that is a package on: `mmdet/models/...`; else the file's name."""
    path = Path(file)
    top = path.parent
    while (top.parent / "__init__.py").exists():
        top = top.parent
    return str(path.relative_to(top.parent)) if (top / "__init__.py").exists() else path.name
