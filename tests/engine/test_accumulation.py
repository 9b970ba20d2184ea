"""Gradients accumulated on two processes: exchanged once a step, equal to the big batch, teacher and all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from reference import ranks
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from ssod.engine.hooks import SemiHook
from ssod.engine.optim import GuardedOptimWrapper
from ssod.engine.processes import start_processes

POINTS = torch.arange(16.0).reshape(2, 2, 4) / 10  # (steps, parts of a step, points of a part)


def train(toy: Any, parts: list[list[torch.Tensor]], counts: int) -> tuple[Any, int, list[Any]]:
    """Student and teacher after these batches, how often gradients were exchanged, when the teacher moved."""
    torch.manual_seed(0)
    model, exchanges = toy(), []
    wrapped = MMDistributedDataParallel(module=model, broadcast_buffers=False)

    def exchange(state, bucket):  # type: ignore[no-untyped-def]  # torch reads annotations as classes
        exchanges.append(1)
        return allreduce_hook(None, bucket)

    wrapped.register_comm_hook(None, exchange)
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
    wrapper = GuardedOptimWrapper(optimizer, accumulative_counts=counts)
    wrapper.initialize_count_status(model, 0, sum(len(each) for each in parts))
    hook, runner = SemiHook(), SimpleNamespace(iter=0, model=wrapped, optim_wrapper=wrapper)
    hook.before_train(runner)
    for runner.iter, points in enumerate(part for step in parts for part in step):
        hook.before_train_iter(runner, runner.iter)
        data = dict(inputs=[each.reshape(1) for each in points], data_samples=[3 * float(x) for x in points])
        wrapped.train_step(data, wrapper)
        hook.after_train_iter(runner, runner.iter)
    moved = [step for what, step in (each for each in model.calls if each != "start") if what == "after"]
    state = {name: each.tolist() for name, each in model.state_dict().items()}
    return state, len(exchanges), moved


def compare(rank: int) -> list[Any]:
    from ssod.registry import MODELS

    start_processes("pytorch", 120)
    toy = MODELS.get("ToyModel")
    own = POINTS[:, :, 2 * rank : 2 * rank + 2]  # this process's half of each part
    halves = [[step[0], step[1]] for step in own]
    whole = [[step.flatten()] for step in own]
    return [train(toy, halves, 2), train(toy, whole, 1)]


def test_accumulated_steps_equal_big_ones(toys: None, tmp_path: Path) -> None:
    first, second = ranks.run(compare, tmp_path)
    assert first == second  # to the bit
    (halves, exchanges, moved), (whole, exchanges_of_whole, moved_of_whole) = first
    assert halves.keys() == whole.keys()
    for name in halves:
        assert torch.tensor(halves[name]).flatten().tolist() == pytest.approx(
            torch.tensor(whole[name]).flatten().tolist(), rel=1e-6
        )
    assert exchanges == exchanges_of_whole  # none in between, once for each step
    assert moved == moved_of_whole == [0, 1]  # optimizer steps, not iterations
