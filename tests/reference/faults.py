"""A small run in a process of its own, with something that goes wrong in one of its iterations."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from mmengine.config import Config

from . import small_run

AT = 4  # the 0-based iteration with the fault: the checkpoint of 4 iterations is there
LENGTH = 6
_CLONE_NEWNS = 0x20000


class Ended(NamedTuple):
    """How a run ended: its exit code and what it wrote to its two streams."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on the error stream."""
        assert self.err.startswith("error: ") and self.err.count("\n") == 1, self.err
        return self.err.strip()


def world(folder: Path, **more: Any) -> Path:
    """A config of six iterations, with labeled and unlabeled images of its own beside it.

    A checkpoint every 2 iterations, a line of metrics every 2, a validation at the end.
    """
    from ssod.data.pipelines import labeled, strong, test, two_views, weak

    small_run.write_images(folder / "labeled")
    small_run.write_images(folder / "unlabeled")
    ann_file = small_run.write_coco(folder / "labeled.json", [f"{n}.png" for n in range(7)], boxes=True)
    size, truth = (96, 96), dict(ann_file=str(ann_file), metainfo=dict(classes=small_run.CLASSES))
    truth["data_prefix"] = dict(img=str(folder / "labeled"))
    known = dict(type="LabeledCoco", pipeline=labeled(size), **truth)
    unknown = dict(
        type="UnlabeledImages", images=str(folder / "unlabeled"), pipeline=two_views(weak(size), strong(size))
    )
    model = small_run.model_config()
    model["method"] = dict(type="FixMatch", unsup_weight=1.0, min_score=0.5)
    config = dict(
        model=model,
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type="LabeledUnlabeledSampler", counts=(1, 1)),
            collate_fn=dict(type="ssod.collate_views"),
            dataset=dict(type="ConcatDataset", datasets=[known, unknown]),
        ),
        val_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=False),
            dataset=dict(type="LabeledCoco", pipeline=test(size), test_mode=True, indices=2, **truth),
        ),
        val_evaluator=dict(type="CocoMetric", ann_file=str(ann_file), metric="bbox"),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=1e-4)),
        train_cfg=dict(max_iters=LENGTH, val_interval=LENGTH),
        default_hooks=dict(
            scalars=dict(type="ScalarLog", interval=2),
            checkpoint=dict(type="Checkpoints", interval=2),
            finite_guard=dict(type="FiniteGuard", max_bad_steps=2),
            pictures=None,
        ),
        data_policy=dict(allow_leaks=True),
        **more,
    )
    path = folder / "small.py"
    Config(config).dump(path)
    return path


def run(
    main: Callable[[list[str]], int],
    words: list[Any],
    fault: Callable[[Any], None] | None = None,
    before: Callable[[], None] | None = None,
    at: int = AT,
) -> Ended:
    """`main(words)` in a fork of this process, so that nothing is imported again.

    fault: called with the runner before iteration `at` · before: called before all, in that process.
    """
    folder = Path(os.environ["SSOD_CACHE"])
    streams = [folder / f"{name}.txt" for name in ("out", "err")]
    child = os.fork()
    if child == 0:
        code = 99
        try:
            for number, path in enumerate(streams, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
            if before is not None:
                before()
            with _with_fault(fault, at):
                code = main([str(word) for word in words])
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    return Ended(os.waitstatus_to_exitcode(status), *(path.read_text() for path in streams))


def _with_fault(fault: Callable[[Any], None] | None, at: int) -> Any:
    from ssod.engine.loops import SemiTrainLoop

    run_iter = SemiTrainLoop.run_iter

    def faulty(self: Any, batch: Any) -> None:
        if fault is not None and self._iter == at:
            self.runner.call_hook("finish_writing")  # the checkpoint from before shall be there
            fault(self.runner)
        run_iter(self, batch)

    return mock.patch.object(SemiTrainLoop, "run_iter", faulty)


# ---------------------------------------------------------------- mounts that only one process sees

_libc = ctypes.CDLL(None, use_errno=True)
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18


def own_mounts() -> None:
    """Gives this process a view of its own on the file systems; OSError where that is not permitted."""
    _call(_libc.unshare, _CLONE_NEWNS)
    _call(_libc.mount, None, b"/", None, _MS_REC | _MS_PRIVATE, None)


def can_mount() -> bool:
    """Whether `own_mounts` is permitted here: to root, mostly."""
    child = os.fork()
    if child == 0:
        try:
            own_mounts()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def make_read_only(folder: Path) -> None:
    """Nobody can write below the folder, as when a disk has errors."""
    place = os.fsencode(folder)
    _call(_libc.mount, place, place, None, _MS_BIND, None)
    _call(_libc.mount, None, place, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY, None)


def put_small_disk(folder: Path, kibibytes: int) -> None:
    """The folder is a disk of that size."""
    options = f"size={kibibytes}k".encode()
    _call(_libc.mount, b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options)


def _call(function: Any, *values: Any) -> None:
    if function(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def fill_disk(folder: Path) -> None:
    """Writes to a file until no byte fits on the folder's disk."""
    with (folder / "filling").open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def spoil_losses(runner: Any) -> None:
    """From now on every loss of the RoI head's classes is nan."""
    runner.model.student.roi_head.bbox_head.loss_cls.loss_weight = float("nan")


def spoil_gradients(runner: Any) -> None:
    """From now on the gradient of one weight is inf, and every loss as it should be."""
    runner.model.student.rpn_head.rpn_reg.weight.register_hook(lambda gradient: gradient * torch.inf)
