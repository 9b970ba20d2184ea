"""Whole runs in processes that are killed again and again, at a given place or at any moment, and resumed."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .ranks import free_port

STEPS = 40
# Bounds that some detections of these networks pass; a burn-in and a state, so that they are resumed, too.
METHODS: dict[str, dict[str, Any] | None] = {
    "supervised": None,
    "SoftTeacher": dict(
        unsup_weight=dict(value=1.0, start=3),
        floor=0.1,
        rpn_min_score=0.2,
        cls_min_score=0.2,
        box_max_spread=0.2,
    ),
    "MeanTeacher": dict(unsup_weight=dict(value=5.0, length=30, shape="sigmoid"), rpn_weight=1.0),
    "FixMatch": dict(
        unsup_weight=1.0,
        min_score=dict(type="ClassAdaptive", num_classes=6, min_score=0.3, lowest=0.1, decay=0.9),
    ),
    "UnbiasedTeacher": dict(unsup_weight=dict(value=1.0, start=3), min_score=0.2),
    "STAC": dict(min_score=0.01),
}


def write_config(
    folder: Path, method: str, workers: int = 0, val_size: int = 4, accumulate: int = 1, **more: Any
) -> Path:
    """A config file of a small run: 2 labeled and 2 unlabeled shapes an iteration, from lively weights."""
    from mmengine.config import Config
    from reference import detectors

    from ssod.data.pipelines import labeled, pseudo_labeled, strong, test, two_views, weak
    from ssod.data.shapes import CLASSES, draw_dataset
    from ssod.registry import MODELS

    root = folder / "shapes"
    draw_dataset(root, num_train=16, num_val=val_size, num_labeled=6)
    detector = detectors.config(exhaustive=False)
    detector.roi_head.bbox_head.num_classes = len(CLASSES)
    place = dict(data_root=str(root), metainfo=dict(classes=CLASSES))
    scale = [(96, 96), (112, 112)]
    known = dict(type="LabeledCoco", ann_file="annotations/train_labeled.json", pipeline=labeled(scale))
    unknown = dict(
        type="UnlabeledCoco",
        ann_file="annotations/train_unlabeled.json",
        pipeline=two_views(weak(scale), strong(scale)),
    )
    images = dict(data_prefix=dict(img="train/"), **place)
    loader = dict(num_workers=workers, persistent_workers=workers > 0)
    val_file = str(root / "annotations/val.json")
    options = METHODS[method]
    ema = dict(type="EMATeacher", decay=0.9)
    model = dict(
        type="SemiDetector",
        detector=detector,
        method=None if options is None else dict(type=method, **options),
        teacher=None if method == "STAC" else ema,
        data_preprocessor=dict(
            type="SemiPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, pad_size_divisor=32
        ),
    )
    datasets = [{**known, **images}, {**unknown, **images}]
    sources = datasets[:1] if method == "supervised" else datasets
    if method == "STAC":
        # Its teacher has trained for twelve steps and is sure of little; two processes' of less still.
        detector.test_cfg.rcnn.score_thr = 0.01
        sources[1] = pseudo_labeled(sources[1])
        more["stages"] = dict(teacher=dict(train_cfg=dict(max_iters=12)), rounds=1)
    config: dict[str, Any] = dict(
        default_scope="ssod",
        randomness=dict(seed=0),
        model=model,
        load_from=str(folder / "lively.pth"),
        train_dataloader=dict(
            batch_size=2 * len(sources),
            sampler=dict(type="LabeledUnlabeledSampler", counts=(2,) * len(sources)),
            collate_fn=dict(type="ssod.collate_views"),
            dataset=dict(type="ConcatDataset", datasets=sources),
            **loader,
        ),
        val_dataloader=dict(
            batch_size=2,
            sampler=dict(type="DefaultSampler", shuffle=False),
            dataset=dict(
                type="LabeledCoco", ann_file="annotations/val.json", data_prefix=dict(img="val/"),
                pipeline=test((96, 96)), test_mode=True, **place,
            ),
            **loader,
        ),
        val_evaluator=dict(type="CocoMetric", ann_file=val_file, metric="bbox"),
        optim_wrapper=dict(
            type="GuardedOptimWrapper",
            optimizer=dict(type="SGD", lr=2e-4, momentum=0.9),
            clip_grad=dict(max_norm=10.0),
            accumulative_counts=accumulate,
        ),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=7),
            dict(type="MultiStepLR", by_epoch=False, end=STEPS, milestones=[25], gamma=0.1),
        ],
        train_cfg=dict(type="SemiTrainLoop", max_iters=STEPS, val_interval=15),
        val_cfg=dict(type="SemiValLoop"),
        # No number divides another: a resume begins within a log interval and away from a validation.
        default_hooks=dict(
            scalars=dict(type="ScalarLog", interval=7), checkpoint=dict(type="Checkpoints", interval=4)
        ),
    )  # fmt: skip
    config.update(more)
    built = MODELS.build(model)
    detectors.enliven(built.student)
    if built.teacher is not None:
        built.teacher.load_state_dict(built.student.state_dict())
    torch.save({"state_dict": built.state_dict()}, folder / "lively.pth")
    path = folder / f"{method}.py"
    Config(config).dump(path)
    return path


@dataclass(frozen=True)
class Kill:
    """Where a life gets a signal: after `seconds`, or at the `count`-th time that it reaches `place`."""

    place: str  # "anywhere", "step" (before the optimizer's), "checkpoint" (within the file), "validation"
    count: int = 0
    seconds: float = 0.0
    number: int = signal.SIGKILL
    times: int = 1
    rank: int = 0

    def arm(self) -> None:
        """Makes this process kill itself at the place."""
        if self.place == "step":
            from ssod.engine.optim import GuardedOptimWrapper

            self._before(GuardedOptimWrapper, "step")
        elif self.place == "forward":
            from ssod.models.detector import SemiDetector

            self._before(SemiDetector, "set_step")
        elif self.place == "validation":
            from ssod.models.detector import SemiDetector

            self._before(SemiDetector, "predict")
        elif self.place == "checkpoint":
            from ssod.engine.saving import checkpoint_writer

            whole, calls = torch.save, [0]

            def half(content: Any, file: Any, *rest: Any, **options: Any) -> None:
                calls[0] += 1
                if calls[0] == self.count:
                    file.write(b"PK\x03\x04" + bytes(1000))
                    file.flush()
                    self._strike()
                whole(content, file, *rest, **options)

            checkpoint_writer.torch.save = half  # type: ignore[assignment]

    def _strike(self) -> None:
        for _ in range(self.times):
            os.kill(os.getpid(), self.number)

    def _before(self, owner: Any, name: str) -> None:
        method, calls = getattr(owner, name), [0]

        def counted(*values: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == self.count:
                self._strike()
            return method(*values, **options)

        setattr(owner, name, counted)


def kills(seed: int, number: int, longest: float, processes: int = 1) -> list[Kill]:
    """Random ends, of every kind; `longest` seconds for those that may come anywhere."""
    draw = random.Random(seed)
    places = ["anywhere", "step", "checkpoint", "validation", "anywhere"]
    found = []
    for index in range(number):
        place = places[index % len(places)]
        # The first process writes checkpoints; any may die in a step.
        rank = draw.randrange(processes) if place == "step" else 0
        found.append(Kill(place, draw.randint(1, 6), draw.uniform(0.2, longest), rank=rank))
    return found


def _life(config: str, work_dir: str, kill: Kill | None, rank: int, world: int, port: int, log: str) -> None:
    """One process of one life, from its beginning to its end: its exit code says how that was."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.setpgid(0, 0)
    torch.set_num_threads(1)
    assert "ssod.engine.train" in sys.modules, "the server that starts lives has imported nothing"
    if world > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if kill is not None and rank == kill.rank:
        kill.arm()
    from ssod.cli import exit_code
    from ssod.engine.train import train

    def run() -> int:
        return 75 if train(config, work_dir=work_dir, resume=True)["status"] == "stopped" else 0

    code = exit_code(run)
    os._exit(code)


def context() -> Any:
    """Where lives come from: a server that has imported everything and computed nothing."""
    # The server is started with the environment alone, and says nothing of a module that it can't find.
    tests = Path(__file__).resolve().parents[1]
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (tests, tests.parent)))
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["reference.preloaded"])
    return found


def live(
    config: Path, work_dir: Path, kill: Kill | None = None, world: int = 1, bound: float = 300.0
) -> list[int]:
    """The exit codes of a life's processes; with a kill of whichever comes first: that, or the run's end."""
    log = str(work_dir.parent / f"{work_dir.name}.log")
    port = free_port()
    lives = [
        context().Process(target=_life, args=(str(config), str(work_dir), kill, rank, world, port, log))
        for rank in range(world)
    ]
    for each in lives:
        each.start()
    end = time.monotonic() + (kill.seconds if kill is not None and kill.place == "anywhere" else bound)
    while time.monotonic() < end and all(each.exitcode is None for each in lives):
        time.sleep(0.01)
    if kill is None or kill.number != signal.SIGKILL or all(each.exitcode == 0 for each in lives):
        for each in lives:
            each.join(bound)
    for each in lives:  # a node that is gone takes all with it
        if each.exitcode is None:
            each.kill()
        each.join()
        _kill_group(each.pid)
    return [int(each.exitcode) for each in lives]


def _kill_group(pid: int) -> None:
    """Kills the loader workers that a process left."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def state_of(work_dir: Path) -> dict[str, Any]:
    """All that must be equal to the bit: the last checkpoint without names and times, and what was logged."""
    content = torch.load(work_dir / "checkpoints" / "last.pth", weights_only=True)
    content["meta"] = {key: content["meta"][key] for key in ("iter", "seed", "size")}
    info = content["message_hub"]["runtime_info"]
    # mmengine's "iter" is written anew before each step; a run resumed for its last validation takes none.
    left_out = ("seconds", "experiment_name", "time", "iter")
    content["message_hub"] = {key: value for key, value in info.items() if key not in left_out}
    lines = [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds_per_step", "data_seconds_per_step", "memory_mb")
    content["lines"] = [{k: v for k, v in line.items() if k not in timed} for line in lines]
    return content


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """The places where two states differ in a single bit."""
    if type(first) is not type(second):
        return [f"{where}: {type(first).__name__} and {type(second).__name__}"]
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) and first.dtype == second.dtype else [where]
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f"{where}: {sorted(map(str, first.keys() ^ second.keys()))}"]
        return [found for key in first for found in differences(first[key], second[key], f"{where}/{key}")]
    if isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return [f"{where}: {len(first)} and {len(second)} items"]
        pairs = enumerate(zip(first, second, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{where}/{i}")]
    return [] if first == second or (first != first and second != second) else [f"{where}: {first} {second}"]
