"""Ramp: a step number -> a weight. Constant, burn-in, linear or sigmoid, one value type for all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Ramp:
    """`value` as a function of the step: 0 before `start`, then rising over `length` steps.

    shape "linear": value · t / length; "sigmoid": value · exp(-5 (1 - t / length)²), the ramp of Mean Teacher
    (arXiv 1703.01780, section 3.1); t counts from `start`. `length` 0 jumps to `value` at `start`: a constant
    (`start` 0) or a burn-in.
    """

    value: float
    start: int = 0
    length: int = 0
    shape: Literal["linear", "sigmoid"] = "linear"

    def __post_init__(self) -> None:
        if self.start < 0 or self.length < 0:
            raise ValueError(f"Ramp: start and length count steps and can't be negative: {self}")
        if self.shape not in ("linear", "sigmoid"):
            raise ValueError(f"Ramp: shape is 'linear' or 'sigmoid', not {self.shape!r}")

    def __call__(self, step: int) -> float:
        """The weight at a 0-based step."""
        if step < self.start:
            return 0.0
        if step >= self.start + self.length:
            return self.value
        share = (step - self.start) / self.length
        return self.value * (share if self.shape == "linear" else math.exp(-5 * (1 - share) ** 2))

    @staticmethod
    def of(spec: float | dict[str, object] | Ramp) -> Ramp:
        """A Ramp from what a config may hold: a number, a dict of its fields, or a Ramp."""
        if isinstance(spec, Ramp):
            return spec
        return Ramp(**spec) if isinstance(spec, dict) else Ramp(float(spec))  # type: ignore[arg-type]
