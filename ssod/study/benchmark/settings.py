"""What tools/benchmark.py was asked for, checked before anything is built."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ssod.errors import UserError

Kernels = Literal["torchvision", "ssod", "both"]
Clock = Literal["wall", "processor"]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Settings:
    """The options of a benchmark; raises UserError for what can't be measured or written.

    against: "mmdet" or None · amp, amp_mmdet: mixed precision for our steps and for mmdet's · device: "cpu",
    "cuda" or None, a GPU if there is one · size: width, height px that every view is stretched to; None
    leaves them as the loader makes them · batch: labeled, unlabeled images; None is the config's ·
    drawn: drawn images in place of the config's · warm_steps: supervised steps before anything is measured,
    and boxes: candidate boxes an image that the heads are then set to find, neither with a checkpoint ·
    mmdet_kernels: whose RoIAlign mmdet runs on where mmcv has no compiled one · loader_batches: batches
    drawn to time the config's loader, 0 for none · clock: "wall", or "processor" for the seconds that this
    process computed, which other work beside it does not lengthen (on a CPU, one thread) · also: our method's
    step once more, with "teacher_bf16" (the teacher's layers in bfloat16) or "amp" (mixed precision), beside
    itself in float32 · steps: names of steps to time, all without any · steps_only: leaves out all that is
    not a step's time · trace, json_file, out: what to write besides the table.
    """

    config: str
    against: str | None = None
    amp: bool = False
    amp_mmdet: bool = False
    device: str | None = None
    rounds: int = 5
    size: Pair | None = None
    batch: Pair | None = None
    drawn: bool = False
    checkpoint: str | None = None
    warm_steps: int = 10
    boxes: int = 15
    threads: int | None = None
    mmdet_kernels: Kernels = "torchvision"
    loader_batches: int = 4
    clock: Clock = "wall"
    also: Sequence[str] = ()
    steps: Sequence[str] = ()
    steps_only: bool = False
    trace: str | None = None
    json_file: str | None = None
    out: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("warm_steps", 0), ("boxes", 1), ("loader_batches", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: give {least} or more")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--threads {self.threads}: give 1 or more")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
        if self.clock == "processor" and (self.on == "cuda" or self.threads != 1):
            raise UserError(
                "--clock processor: is for steps on one thread of a CPU: add --threads 1 --device cpu"
            )
        if self.also and self.amp:
            raise UserError(
                "--also: with --amp the method's own step is not in float32; leave out one of them"
            )
        if self.steps_only and self.trace is not None:
            raise UserError("--trace writes what --steps-only leaves out; leave out one of them")
        if self.amp_mmdet and self.against is None:
            raise UserError("--amp-mmdet is for mmdet's steps: add --against mmdet")
        for option, path in (("--json", self.json_file), ("--trace", self.trace)):
            if path is not None and not Path(path).resolve().parent.is_dir():
                raise UserError(f"{option} {path}: its folder does not exist; make it first")
        if self.out is not None and Path(self.out).exists() and not Path(self.out).is_dir():
            raise UserError(f"--out {self.out}: is a file; name a folder")

    @property
    def on(self) -> str:
        """The device's type, "cpu" or "cuda"."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")


def parse_size(text: str) -> Pair:
    """Width and height of `640x480`; UserError for anything else, or for less than 32 px."""
    return _pair(text, "x", 32, "--size", "WxH in pixels, at least 32, such as 640x480")


def parse_batch(text: str) -> Pair:
    """Labeled and unlabeled images of `1+4`; UserError for anything else."""
    return _pair(text, r"\+", 1, "--batch", "LABELED+UNLABELED, at least 1 of each, such as 1+4")


def _pair(text: str, between: str, least: int, option: str, wanted: str) -> Pair:
    found = re.fullmatch(rf"(\d+){between}(\d+)", text.strip(), re.ASCII)
    pair = (int(found[1]), int(found[2])) if found else (0, 0)
    if min(pair) < least:
        raise UserError(f"{option} {text!r}: give {wanted}")
    return pair
