"""The hooks by themselves: what the model is told, and how scalars are averaged."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssod.engine import hooks
from ssod.engine.hooks import ScalarLog, SemiHook, means
from ssod.engine.records.console import boxes_per_image, clock
from ssod.engine.train import train


class Told:
    """A model that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self) -> None:
        self.calls.append("start")

    def set_step(self, step: int) -> None:
        self.calls.append(("set", step))

    def after_step(self, step: int) -> None:
        self.calls.append(("after", step))


def runner(iteration: int = 0, max_iters: int = 6) -> SimpleNamespace:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    wrapper = SimpleNamespace(optimizer=optimizer, grad_norm=torch.tensor(3.0), _accumulative_counts=1)
    given: list[Any] = []
    return SimpleNamespace(
        model=Told(),
        iter=iteration,
        max_iters=max_iters,
        optim_wrapper=wrapper,
        visualizer=SimpleNamespace(add_scalars=lambda scalars, step: None),
        given=given,
        call_hook=lambda name, **what: given.append((name, what)),
    )


@pytest.mark.parametrize(("iteration", "expected"), [(0, ["start"]), (4, [])])
def test_only_a_fresh_run_is_started(iteration: int, expected: list[str]) -> None:
    run = runner(iteration)
    SemiHook().before_train(run)
    assert run.model.calls == expected


def test_the_teacher_follows_only_steps_that_were_taken() -> None:
    run, hook = runner(), SemiHook()
    run.optim_wrapper._accumulative_counts = 2
    hook.before_train(run)
    for run.iter in range(4):
        hook.before_train_iter(run, run.iter)
        if run.iter % 2:  # two iterations per optimizer step
            run.optim_wrapper.optimizer.step()
        hook.after_train_iter(run, run.iter)
    after = [call for call in run.model.calls if call[0] == "after"]
    assert after == [("after", 0), ("after", 1)]  # the ramp of its average begins with a copy
    assert run.model.calls[1:3] == [("set", 0), ("set", 1)]


def test_scalars_wait_for_the_interval() -> None:
    run, hook = runner(max_iters=5), ScalarLog(interval=2)
    hook.before_train(run)
    for run.iter in range(5):
        hook.before_train_iter(run, run.iter)
        outputs = {"loss": torch.tensor(float(run.iter)), "num_boxes_cls": torch.tensor(4)}
        hook.after_train_iter(run, run.iter, outputs=outputs)
    assert [(name, what["iteration"]) for name, what in run.given] == [
        ("after_scalars", 2), ("after_scalars", 4), ("after_scalars", 5),
    ]  # fmt: skip
    scalars = [what["scalars"] for _, what in run.given]
    assert [each["loss"] for each in scalars] == [0.5, 2.5, 4.0]
    assert scalars[0]["lr"] == 0.5 and scalars[0]["grad_norm"] == 3.0
    assert scalars[0]["num_boxes_cls"] == 4


def test_a_resumed_interval_times_the_steps_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine steps of the interval came before: their scalars are in the checkpoint, their time is not."""
    run, hook, now = runner(9, max_iters=20), ScalarLog(interval=10), [100.0]
    monkeypatch.setattr(hooks, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    run._resume = True
    hook.after_load_checkpoint(run, {"scalars": [{"loss": 1.0}] * 9})
    hook.before_train(run)
    now[0] += 0.5
    hook.before_train_iter(run, 9)
    now[0] += 1.5
    hook.after_train_iter(run, 9, outputs={"loss": torch.tensor(11.0)})
    [(_, given)] = run.given
    assert given["scalars"]["loss"] == 2.0
    assert given["scalars"]["seconds_per_step"] == 2.0
    assert given["scalars"]["data_seconds_per_step"] == 0.5


def test_means_are_over_the_steps_that_have_the_scalar() -> None:
    found = means([{"a": torch.tensor(1.0)}, {"a": 2, "b": torch.tensor([7])}, {}])
    assert found == {"a": 1.5, "b": 7.0}
    assert math.isnan(means([{"a": torch.tensor(math.nan)}, {"a": 1.0}])["a"])
    assert means([]) == {}


def test_gradient_accumulation_in_a_run(
    toy_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssod.registry import MODELS

    told: list[int] = []
    toy = MODELS.get("ToyModel")
    follow = toy.after_step

    def after_step(self: Any, step: int) -> None:
        told.append(step)
        follow(self, step)

    monkeypatch.setattr(toy, "after_step", after_step)
    train(toy_config("optim_wrapper.update(accumulative_counts=3)\n"), work_dir=tmp_path / "run")
    assert told == [0, 1, 2]  # in iterations 2, 5 and 7: the last step takes what is left


def test_boxes_per_image_takes_the_classification_boxes_first() -> None:
    assert boxes_per_image({"num_boxes_candidates": 9.0, "num_boxes_cls": 2.0}) == 2.0
    assert boxes_per_image({"num_boxes_own": 3.0}) == 3.0
    assert boxes_per_image({"loss": 1.0}) is None


def test_clock() -> None:
    assert (clock(59.6), clock(61), clock(3661), clock(-1)) == ("1:00", "1:01", "1:01:01", "0:00")
