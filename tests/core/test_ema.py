"""The moving average in closed form; HAZARDS row 4 in numbers, on a model of one parameter."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssod.core.ema import copy_weights, ema_update, ramped_decay


def network(seed: int) -> nn.Sequential:
    """A small network with BatchNorm, whose buffers differ from one seed to the next."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 2))
    model(torch.randn(2, 3, 6, 7)).sum()
    for _ in range(seed):
        model(torch.randn(2, 3, 6, 7) * seed + seed)
    return model


def one(value: float) -> nn.Module:
    """A model of one parameter."""
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor(value))
    return model


def test_update_is_the_weighted_mean() -> None:
    target, source, before = network(1), network(2), network(1)
    ema_update(target, source, 0.9)
    for ours, old, new in zip(target.parameters(), before.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(ours, 0.9 * old + 0.1 * new)
    assert not source[0].weight.equal(before[0].weight)


def test_after_t_steps() -> None:
    """θ_t = α^t θ_0 + (1 - α^t) θ for a source that stands still."""
    target = one(1.0)
    for _ in range(200):
        ema_update(target, one(3.0), 0.99)
    assert target.weight.item() == pytest.approx(0.99**200 + (1 - 0.99**200) * 3, rel=1e-5)


@pytest.mark.parametrize("mode", ["copy", "average"])
def test_buffers(mode: Any) -> None:
    target, source, before = network(1), network(3), network(1)
    ema_update(target, source, 0.75, mode)
    names = [name for name, _ in target.named_buffers()]
    assert names == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    for name, ours in target.named_buffers():
        old, new = before.get_buffer(name), source.get_buffer(name)
        assert not old.equal(new)
        average = mode == "average" and ours.is_floating_point()  # a count has no average
        torch.testing.assert_close(ours, 0.75 * old + 0.25 * new if average else new)


def test_a_copy_does_not_share_memory() -> None:
    target, source = network(1), network(2)
    copy_weights(target, source)
    for ours, theirs in zip(target.state_dict().values(), source.state_dict().values(), strict=True):
        assert ours.equal(theirs) and ours.data_ptr() != theirs.data_ptr()


@pytest.mark.parametrize("update", [copy_weights, lambda a, b: ema_update(a, b, 0.5)], ids=["copy", "update"])
def test_another_architecture_is_an_error(update: Any) -> None:
    with pytest.raises(ValueError, match="same architecture"):
        update(nn.Linear(2, 3), nn.Linear(3, 2))


def test_the_average_takes_no_part_in_the_gradient() -> None:
    target, source = network(1), network(2)
    ema_update(target, source, 0.5)
    assert all(each.is_leaf and each.grad_fn is None for each in target.parameters())


# ---------------------------------------------------------------- the ramp


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.0), (1, 0.5), (9, 0.9), (998, 1 - 1 / 999), (999, 0.999), (10**6, 0.999)]
)
def test_ramped_decay(step: int, expected: float) -> None:
    assert ramped_decay(0.999, step) == pytest.approx(expected)


def test_the_ramp_is_a_plain_mean_until_it_reaches_its_decay() -> None:
    target = one(-100.0)  # the first update copies: nothing is left of this
    for step in range(400):
        ema_update(target, one(float(step)), ramped_decay(0.999, step))
    assert target.weight.item() == pytest.approx(sum(range(400)) / 400, rel=1e-4)


@pytest.mark.parametrize(("steps", "theirs_keeps"), [(500, 0.606), (1000, 0.368)])
def test_mmdets_hook_keeps_the_initial_weights_and_ours_does_not(
    registered: None, steps: int, theirs_keeps: float
) -> None:
    """The student leaves its random weights (1) for good ones (0) at once; how long does the teacher?"""
    from mmdet.engine.hooks import MeanTeacherHook

    model = nn.Module()
    model.student, model.teacher = one(1.0), one(5.0)
    hook, ours = MeanTeacherHook(momentum=0.001), one(1.0)
    hook.before_train(SimpleNamespace(model=model, iter=0))
    assert model.teacher.weight == 1.0
    with torch.no_grad():
        model.student.weight.zero_()
    for step in range(steps):
        hook.after_train_iter(SimpleNamespace(model=model, iter=step), step)
        ema_update(ours, model.student, ramped_decay(0.999, step))
    assert model.teacher.weight.item() == pytest.approx(0.999**steps, rel=1e-3)
    assert model.teacher.weight.item() == pytest.approx(theirs_keeps, abs=1e-3)
    assert ours.weight == 0.0


def test_mmdets_hook_leaves_the_buffers_behind_and_ours_does_not(registered: None) -> None:
    from mmdet.engine.hooks import MeanTeacherHook

    model = nn.Module()
    model.student, model.teacher = network(2), network(1)
    MeanTeacherHook().after_train_iter(SimpleNamespace(model=model, iter=0), 0)
    assert model.teacher[1].running_mean.equal(network(1)[1].running_mean)
    ema_update(model.teacher, model.student, 0.999)
    assert model.teacher[1].running_mean.equal(model.student[1].running_mean)


@pytest.mark.parametrize("mode", ["copy", "average"])
def test_a_step_that_was_not_taken_moves_nothing(mode: Any) -> None:
    target, source, before, plain = network(1), network(2), network(1), network(1)
    ema_update(target, source, 0.9, mode, taken=torch.tensor(False))
    assert_same(target, before)
    ema_update(target, source, 0.9, mode, taken=torch.tensor(True))
    ema_update(plain, source, 0.9, mode)
    assert_same(target, plain)


@pytest.mark.parametrize("mode", ["copy", "average"])
@pytest.mark.parametrize("taken", [None, True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["0.weight", "2.bias", "1.running_var"])
def test_a_source_that_is_not_finite_is_never_averaged_in(
    where: str, bad: float, taken: bool | None, mode: Any
) -> None:
    target, source, before = network(1), network(2), network(1)
    source.state_dict()[where].view(-1)[-1] = bad
    for decay in (0.9, 0.0):  # 0 copies: the first update of a ramp
        ema_update(target, source, decay, mode, None if taken is None else torch.tensor(taken))
        assert_same(target, before)
    ema_update(target, network(2), 0.9, mode)
    assert not target[0].weight.equal(before[0].weight), "a good one is followed again"


def assert_same(first: nn.Module, second: nn.Module) -> None:
    """To the bit, buffers and all."""
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
