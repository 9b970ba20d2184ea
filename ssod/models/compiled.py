"""torch.compile for a detector's trunk and heads, in place: names, and so checkpoint keys, stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from .supported import two_stage_fault

MODES = (None, "default", "max-autotune-no-cudagraphs")


@dataclass(frozen=True)
class Compilation:
    """What is compiled, and how: `model.compile`, True or a dict of these fields.

    trunk: backbone and neck · heads: the convolutions of the rpn_head and the layers of the roi_head's
    bbox_head, of detectors that frcnn.py computes · mode, backend: torch.compile's; no mode with CUDA
    graphs, whose results the next call overwrites: the teacher's features are read more than once.
    """

    trunk: bool = True
    heads: bool = True
    mode: str | None = None
    backend: str = "inductor"

    @staticmethod
    def of(spec: bool | Mapping[str, Any]) -> Compilation | None:
        """From what a config may hold; None for False. Raises UserError for an unknown field."""
        if isinstance(spec, bool):
            return Compilation() if spec else None
        known = [field.name for field in fields(Compilation)]
        if not isinstance(spec, Mapping) or not set(spec) <= set(known):
            raise UserError(f"model.compile={spec!r}: use True, False or a dict of {', '.join(known)}")
        for name in ("trunk", "heads"):
            if not isinstance(spec.get(name, True), bool):
                raise UserError(f"model.compile: {name}={spec[name]!r}; use True or False")
        if spec.get("mode") not in MODES:
            raise UserError(f"model.compile: mode={spec['mode']!r}; use {' or '.join(map(repr, MODES))}")
        return Compilation(**spec)

    def apply(self, detector: Any, fixed: bool) -> None:
        """Has the parts of a detector compiled when they are first called.

        fixed: whether trunk and RPN see few sizes of images: one graph for each, where otherwise torch tries
        one for many sizes once it has seen a second. The box head's is for any number of boxes. Raises
        UserError for a backend or mode that torch does not know.
        """
        for part, dynamic in self.parts(detector, False if fixed else None):
            try:
                part.compile(backend=self.backend, mode=self.mode, dynamic=dynamic)
            except (RuntimeError, ValueError) as error:
                reason = str(error).strip().split("\n")[0]
                raise UserError(
                    f"model.compile: backend={self.backend!r}, mode={self.mode!r}: {reason}"
                ) from error

    def parts(self, detector: Any, dynamic: bool | None) -> Iterator[tuple[nn.Module, bool | None]]:
        """The modules to compile, each with torch.compile's `dynamic`."""
        if self.trunk:
            yield detector.backbone, dynamic
            if detector.with_neck:
                yield detector.neck, dynamic
        if self.heads and two_stage_fault(detector) is None:
            yield detector.rpn_head, dynamic
            yield detector.roi_head.bbox_head, True


def as_written() -> AbstractContextManager[Any]:
    """A block that compiles nothing and runs nothing compiled: images of a validation have many sizes."""
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
