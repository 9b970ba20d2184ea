"""A step on a CPU that takes the ways it would take on a GPU, so that what a GPU would run can be counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

from ssod.engine.optim import GuardedOptimWrapper
from ssod.kernels import pooling
from ssod.models import suppression


def on_torchvisions_kernels() -> AbstractContextManager[Any]:
    """A block in which RoIAlign on a CPU is torchvision's, as on a GPU, and not our faster one."""
    return mock.patch.object(pooling, "_on_cpu", lambda rois: False)


@contextmanager
def as_on_a_gpu(optimizer: Any) -> Iterator[None]:
    """A block with torchvision's RoIAlign, NMS in fixed shapes and, of ours, a fused optimizer.

    optimizer: the optimizer wrapper of the step. mmengine's stays as it is.
    """
    with (
        on_torchvisions_kernels(),
        mock.patch.object(suppression, "host_waits", lambda device: True),
        _fused(optimizer),
    ):
        yield


@contextmanager
def _fused(wrapper: Any) -> Iterator[None]:
    """A block in which our wrapper's optimizer steps by torch's fused kernel, which CPUs have as well."""
    if not isinstance(wrapper, GuardedOptimWrapper) or wrapper.scaler is not None:
        yield
        return
    groups = wrapper.optimizer.param_groups
    before = [{key: group.get(key) for key in ("fused", "foreach")} for group in groups]
    try:
        for group in groups:
            group.update(fused=True, foreach=False)
        with mock.patch.object(wrapper, "skips_on_device", lambda: True):
            yield
    finally:
        for group, own in zip(groups, before, strict=True):
            group.update(own)
        for told in ("found_inf", "grad_scale"):  # no other kernel may find it there
            wrapper.optimizer.__dict__.pop(told, None)
