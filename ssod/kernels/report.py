"""What mmcv's environment report asks of its operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing this module stays cheap: torch comes with the first kernel called
    pass


def get_compiler_version() -> str:
    """What mmcv's environment report shows as the compiler of its operations."""
    from torchvision import __version__

    return f"none (torchvision {__version__})"


def get_compiling_cuda_version() -> str:
    """The CUDA version torch, and with it torchvision, was built for, or "not available"."""
    import torch

    return torch.version.cuda or "not available"


OPERATIONS: tuple[Callable[..., Any], ...] = (get_compiler_version, get_compiling_cuda_version)
