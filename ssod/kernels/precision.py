"""What the kernels share: float32 at least, autocast off, torchvision's operators."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:  # importing this module stays cheap: torch comes with the first kernel called
    from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(kernel: Callable[P, R]) -> Callable[P, R]:
    """The kernel with autocast off on the device of its first argument."""

    @functools.wraps(kernel)
    def wrapped(*values: P.args, **options: P.kwargs) -> R:
        import torch

        first = values[0] if values else next(iter(options.values()))
        with torch.autocast(first.device.type, enabled=False):  # type: ignore[attr-defined]
            return kernel(*values, **options)

    return wrapped


def wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in their common type, at least float32."""
    import torch

    kind = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return tuple(tensor.to(kind) for tensor in tensors)


def torchvision_operators() -> Any:
    """torchvision's C++ operators, registered with torch by importing torchvision."""
    import torch

    importlib.import_module("torchvision")
    return torch.ops.torchvision
