"""BatchNorm's statistics: untouched while they are finite, as before where a batch would spoil them."""

import torch
from torch import nn

from ssod.engine.running_statistics import RunningStatistics


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
        statistics.mend()
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())


def test_what_a_bad_image_spoils_is_as_before() -> None:
    torch.manual_seed(0)
    model = network()
    statistics = RunningStatistics(model)
    model(torch.rand(2, 3, 4, 4))
    statistics.mend()
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    spoilt = torch.rand(2, 3, 4, 4)
    spoilt[0, 1] = torch.nan  # one channel of the first norm, and through the convolution all of the second
    model(spoilt)
    assert model[0].running_mean.isnan().tolist() == [False, True, False]
    statistics.mend()
    after = model.state_dict()
    assert torch.equal(after["0.running_mean"][1], before["0.running_mean"][1])
    assert torch.equal(after["2.running_var"], before["2.running_var"])
    assert not torch.equal(after["0.running_mean"][0], before["0.running_mean"][0])


def test_frozen_norms_are_not_watched() -> None:
    model = network()
    model[0].eval()
    assert RunningStatistics(model).buffers == [model[2].running_mean, model[2].running_var]
    assert RunningStatistics(model.eval()).kept is None
    RunningStatistics(model).mend()
