"""Every method on two processes: one forward a step, losses alike by name, teachers alike and untouched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import set_random_seed
from reference import detectors, ranks
from reference.lively_methods import METHODS
from reference.parity import Ready

from ssod.engine.faults.equality import check_equal_on_ranks
from ssod.engine.optim import GuardedOptimWrapper
from ssod.engine.processes import start_processes
from ssod.errors import RunError
from ssod.models import frcnn
from ssod.models.views import SemiBatch

EMA = dict(type="EMATeacher", ramp=False)  # it goes on finding boxes
STEPS = ("with labels", "first without", "bfloat16")


def batch_of(rank: int, empty: bool) -> SemiBatch:
    """Another batch for each rank; an empty one has neither true nor offline labels."""
    batch = detectors.semi_batch(seed=10 * rank)
    offline = detectors.truth(of=batch.strong, seed=4)
    if empty:
        offline = offline.where(torch.zeros_like(offline.valid))
        batch = replace(batch, truth=batch.truth.where(torch.zeros_like(batch.truth.valid)))
    return replace(batch, strong_labels=offline)


def train(rank: int, name: str) -> dict[str, Any]:
    """What a rank saw of three steps: loss names, counts of boxes, forwards, whether ranks stayed alike.

    In the second step the last rank has no label of any kind, no pseudo box, no sure region.
    """
    set_random_seed(0)
    method = dict(type=name.split(",")[0], **METHODS[name])
    model = detectors.semi_detector(dict(method, unsup_weight=1.0), EMA, exhaustive=False)
    model.data_preprocessor = Ready()
    wrapped = MMDistributedDataParallel(module=model, broadcast_buffers=False)
    forwards: list[int] = []
    wrapped.register_forward_pre_hook(lambda *_: forwards.append(1))
    parameters, _ = wrapped._build_params_for_reducer()
    reduced = {id(each) for each in parameters}
    detect = frcnn.detect

    def finds_nothing(*words: Any) -> Any:
        labels, pyramid = detect(*words)
        return labels.where(torch.zeros_like(labels.valid)), pyramid

    names, boxes = [], []
    for step, kind in enumerate(STEPS):
        precision: Any = "bfloat16" if kind == "bfloat16" else "float32"
        optimizer = torch.optim.SGD(model.student.parameters(), lr=1e-5)
        wrapper = GuardedOptimWrapper(optimizer, precision=precision)
        empty = kind == "first without" and rank == 1
        frcnn.detect = finds_nothing if empty else detect
        if empty and hasattr(model.method, "floor"):
            model.method.floor = 2.0
        model.set_step(step)
        losses = wrapped.train_step(batch_of(rank, empty), wrapper)
        model.after_step(step)
        assert all(torch.isfinite(each).all() for each in losses.values()), losses
        names.append(list(losses))
        boxes.append(float(sum(each for key, each in losses.items() if key.startswith("num_boxes"))))
        check_equal_on_ranks(model, f"{name} after {kind}")  # student, teacher, method's state
    return dict(
        names=names,
        boxes=boxes,
        forwards=len(forwards),
        reduced_student=all(id(p) in reduced for p in model.student.parameters() if p.requires_grad),
        reduced_teacher=any(id(p) in reduced for p in model.teacher.parameters()),
        own=torch.cat([p.detach().flatten()[:3] for p in model.student.parameters()]).tolist(),
    )


def train_all(rank: int) -> dict[str, Any]:
    start_processes("pytorch", 300)
    return {name: train(rank, name) for name in METHODS}


@pytest.fixture(scope="module")
def seen(registered: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return ranks.run(train_all, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_on_two_processes(name: str, seen: list[dict[str, Any]]) -> None:
    first, second = (each[name] for each in seen)
    assert first["names"] == second["names"]
    assert first["names"][0] == first["names"][1] == first["names"][2]
    assert first["forwards"] == second["forwards"] == len(STEPS)
    assert first["own"] == second["own"]
    for each in (first, second):
        assert each["reduced_student"] and not each["reduced_teacher"]
    if name != "MeanTeacher":  # its regions are no labels
        assert second["boxes"][1] == 0 < first["boxes"][1]


def test_every_method_is_here(registered: None) -> None:
    from ssod.registry import METHODS as REGISTRY

    ours = {name for name, each in REGISTRY.module_dict.items() if each.__module__.startswith("ssod.")}
    assert ours == {name.split(",")[0] for name in METHODS}


def moved(rank: int) -> str:
    """What the check says of a teacher that one rank has moved."""
    start_processes("pytorch", 300)
    model = detectors.semi_detector(dict(type="SoftTeacher"), EMA)
    if rank == 1:
        with torch.no_grad():
            model.teacher.rpn_head.rpn_cls.bias[0] += 1e-6
    try:
        check_equal_on_ranks(model.teacher, "teacher")
    except RunError as error:
        return str(error)
    return ""


def test_a_teacher_that_went_its_own_way_is_found(registered: None, tmp_path: Path) -> None:
    said = ranks.run(moved, tmp_path)
    assert said[0] == said[1] and said[0].startswith("teacher: rpn_head.rpn_cls.bias and 0 more of ")
