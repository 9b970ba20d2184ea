"""BatchNorm's statistics: untouched while finite, as before where a batch would spoil them, shared."""

from pathlib import Path

import pytest
import torch
from reference import ranks
from torch import nn

from ssod.engine.faults.running_statistics import RunningStatistics
from ssod.engine.processes import start_processes


def network() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train()


def test_finite_statistics_are_not_touched() -> None:
    torch.manual_seed(0)
    ours, theirs = network(), network()
    theirs.load_state_dict(ours.state_dict())
    statistics = RunningStatistics(ours)
    for _ in range(3):
        images = torch.rand(2, 3, 4, 4)
        ours(images), theirs(images)
        statistics.settle()
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())


def test_what_a_bad_image_spoils_is_as_before() -> None:
    torch.manual_seed(0)
    model = network()
    statistics = RunningStatistics(model)
    model(torch.rand(2, 3, 4, 4))
    statistics.settle()
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    spoilt = torch.rand(2, 3, 4, 4)
    spoilt[0, 1] = torch.nan  # one channel of the first norm, and through the convolution all of the second
    model(spoilt)
    assert model[0].running_mean.isnan().tolist() == [False, True, False]
    statistics.settle()
    after = model.state_dict()
    assert torch.equal(after["0.running_mean"][1], before["0.running_mean"][1])
    assert torch.equal(after["2.running_var"], before["2.running_var"])
    assert not torch.equal(after["0.running_mean"][0], before["0.running_mean"][0])


def test_frozen_norms_are_not_watched() -> None:
    model = network()
    model[0].eval()
    assert RunningStatistics(model).buffers == [model[2].running_mean, model[2].running_var]
    assert RunningStatistics(model.eval()).kept is None
    RunningStatistics(model).settle()


def shared(rank: int) -> list[list[float]]:
    """The statistics of a process with images of its own; the first one's second has a nan."""
    start_processes("pytorch", 120)
    torch.manual_seed(0)
    model = network()
    statistics = RunningStatistics(model)
    found = []
    for step in range(2):
        images = torch.full((1, 3, 4, 4), 1.0 + rank)
        images[0, 0, 0, 0] = torch.nan if rank == 0 and step == 1 else 1.0 + rank
        model(images)
        statistics.settle()
        found.append(model[0].running_mean.tolist())
    return found


def test_processes_share_them(tmp_path: Path) -> None:
    first, second = ranks.run(shared, tmp_path)
    assert first == second
    # Means of 1 and 2, momentum 0.1, twice; the channel with nan stays as it was after the first step.
    assert first[0] == pytest.approx([0.15, 0.15, 0.15])
    assert first[1] == pytest.approx([0.15, 0.285, 0.285])
