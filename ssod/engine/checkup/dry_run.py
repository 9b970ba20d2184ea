"""Two steps of the real training in a folder that is thrown away: what would fail or diverge shows."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from ssod.data.checkup.findings import Finding, fact, fails, some
from ssod.data.pseudo_coco import Provenance, write_pseudo_coco
from ssod.engine.checkup.setup import Setup
from ssod.engine.config import complete, use_fused_optimizer
from ssod.engine.hooks import means
from ssod.engine.offline.stage_plan import Plan, student_config, teacher_config
from ssod.engine.records.console import boxes_per_image, clock
from ssod.engine.runner import build_runner
from ssod.engine.saving import random_state
from ssod.engine.testing import silence
from ssod.errors import UserError

STEPS = 2


class _Watch(Hook):  # type: ignore[misc]
    """Keeps each step's seconds and scalars."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.scalars: list[dict[str, float]] = []

    def before_train(self, runner: Any) -> None:
        self.mark = time.perf_counter()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.scalars.append(means([outputs or {}]))
        now = time.perf_counter()
        self.seconds.append(now - self.mark)
        self.mark = now


def dry_run(setup: Setup) -> list[Finding]:
    """What two steps show: their time, losses and pseudo boxes, or the error that ends them.

    The engine's own training with everything of the config, apart from its length, the loader's processes
    (none), pictures and visualizers. The unsupervised loss is on from the first step. Two validation images
    go through model and metric before. Stages are tried one by one, the student with made-up boxes.
    """
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="ssod-doctor-") as folder, random_state.preserved():
        for number, (name, make) in enumerate(_trainings(setup, Path(folder))):
            try:
                findings += _try(make(), Path(folder, f"run_{number}"), name, setup)
            except Exception as error:  # whatever it is, training would end with it
                line = error.one_line if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                mend = "change what the message names; tools/train.py shows the traceback"
                findings.append(fails("dry-run-failed", name, " ".join(line.split()), mend))
                break
    return findings


def _trainings(setup: Setup, folder: Path) -> Iterator[tuple[str, Any]]:
    """(name, function that makes its config) of each training: one, or those of the stages."""
    config = Config(copy.deepcopy(setup.config.to_dict()))
    if "stages" not in config:
        yield "training", lambda: config
        return
    plan = Plan.of(config)
    yield "stage 1, teacher", lambda: teacher_config(config, plan.teacher)
    yield "stage 3, student", lambda: student_config(config, _made_up_labels(setup, folder / "labels.json"))


def _made_up_labels(setup: Setup, path: Path) -> Path:
    """A file of pseudo labels: one box in the middle of each unlabeled image."""
    unlabeled = next(part for part in setup.parts if part.name == "unlabeled")
    rows = [
        {
            **{name: image[name] for name in ("id", "file_name", "width", "height")},
            "boxes": [
                [image["width"] / 4, image["height"] / 4, image["width"] / 2, image["height"] / 2, 1, 1.0]
            ],
        }
        for image in unlabeled.images
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(unlabeled.classes, 1)]
    write_pseudo_coco(path, Provenance("", "", "", 0.0, "student"), categories, rows)
    return path


def shortened(config: Config, work_dir: Path, weight: float | None) -> Config:
    """The config of two steps in the main process, nothing shown or sent; weight: λ_u, at once."""
    config = Config(copy.deepcopy(config.to_dict()))
    complete(config, "dry run")
    config.work_dir, config.launcher = str(work_dir), "none"
    config.train_cfg.update(max_iters=STEPS, val_begin=STEPS + 1, val_interval=STEPS + 1)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if config.get(name):
            config[name].update(num_workers=0, persistent_workers=False)
            config[name].pop("prefetch_factor", None)
    config.pop("visualizer", None)
    config.default_hooks.update(
        pictures=None, telemetry=None, checkpoint={"type": "Checkpoints", "interval": STEPS + 1}
    )
    method = config.model.get("method")
    if method and weight is not None:
        method.unsup_weight = weight
    return config


def _try(config: Config, work_dir: Path, name: str, setup: Setup) -> list[Finding]:
    """The findings of one training of two steps."""
    use_fused_optimizer(config, torch.cuda.is_available())
    silence()
    weight = None if setup.ramp is None else setup.ramp.value
    runner, watch = build_runner(shortened(config, work_dir, weight)), _Watch()
    runner.register_hook(watch)
    try:
        runner.train()
    finally:
        runner.close_log()
    bad = sorted({key for each in watch.scalars for key, value in each.items() if not math.isfinite(value)})
    if bad:
        mend = "look at the data's findings; lower the learning rate, clip gradients"
        return [fails("loss-not-finite", name, f"not finite in the first {STEPS} steps: {some(bad)}", mend)]
    last, seconds = watch.scalars[-1], watch.seconds[-1]
    boxes = boxes_per_image(last)
    size = sum(path.stat().st_size for path in work_dir.rglob("*.pth"))
    said = "" if boxes is None else f", {boxes:.1f} pseudo boxes an image before any training"
    text = (
        f"{seconds:.2f} s a step, loss {last.get('loss', math.nan):.4g}{said}; {setup.max_iters:,} steps "
        f"would take {clock(seconds * setup.max_iters)}; a checkpoint is {size / 2**20:.0f} MiB"
    )
    return [
        fact(
            "dry-run",
            name,
            text,
            seconds_per_step=seconds,
            boxes_per_image=boxes,
            checkpoint_bytes=size,
            scalars=last,
        )
    ]
