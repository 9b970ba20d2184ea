"""GuardedOptimWrapper: clipping as torch does it, no step along a gradient that is not finite."""

import pytest
import torch
from torch import nn

from ssod.engine.optim import GuardedOptimWrapper


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def wrapped(model: nn.Module, **options: object) -> GuardedOptimWrapper:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    return GuardedOptimWrapper(optimizer, **options)


def loss_of(model: nn.Module, factor: float = 1.0) -> torch.Tensor:
    return factor * 50 * model(torch.ones(2, 3)).square().sum()


@pytest.mark.parametrize("norm_type", [2, 1])
def test_clipping_is_torchs(norm_type: int) -> None:
    ours, theirs = network(), network()
    wrapper = wrapped(ours, clip_grad=dict(max_norm=0.7, norm_type=norm_type))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        wrapper.update_params(loss_of(ours))
        optimizer.zero_grad()
        loss_of(theirs).backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.7, norm_type)
        optimizer.step()
        torch.testing.assert_close(wrapper.grad_norm, norm)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_gradient_changes_nothing(bad: float) -> None:
    model = network()
    wrapper = wrapped(model, clip_grad=dict(max_norm=1.0))
    steps: list[int] = []
    wrapper.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    wrapper.update_params(loss_of(model))
    before = [each.clone() for each in model.parameters()]
    wrapper.update_params(loss_of(model, bad))
    assert len(steps) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert wrapper.first_bad_gradient() is next(model.parameters())
    wrapper.update_params(loss_of(model))
    assert len(steps) == 2 and wrapper.first_bad_gradient() is None
    assert (wrapper.steps, int(wrapper.left_out)) == (3, 1)


def test_the_first_bad_gradient_is_named() -> None:
    model = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    wrapper = wrapped(model)
    loss = model[0](torch.ones(1, 2)).sum() + (0 * model[1].weight.sum()).sqrt()  # a slope of 0 times inf
    assert torch.isfinite(loss)
    wrapper.update_params(loss)
    assert wrapper.first_bad_gradient() is model[1].weight


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_with_a_finite_gradient_takes_no_step(bad: float) -> None:
    model = network()
    wrapper, before = wrapped(model), [each.clone() for each in model.parameters()]
    wrapper.update_params(loss_of(model) + bad)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert int(wrapper.left_out) == 1


def test_a_bad_loss_leaves_out_the_whole_accumulated_step() -> None:
    model = network()
    wrapper = wrapped(model, accumulative_counts=3)
    before = [each.clone() for each in model.parameters()]
    for factor in (1.0, float("nan"), 1.0):
        wrapper.update_params(loss_of(model, factor))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    for _ in range(3):
        wrapper.update_params(loss_of(model))
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert (wrapper.steps, int(wrapper.left_out)) == (2, 1)


def test_accumulation_steps_once_for_two_losses() -> None:
    ours, theirs = network(), network()
    wrapper = wrapped(ours, accumulative_counts=2)
    wrapper.update_params(loss_of(ours))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    wrapper.update_params(loss_of(ours, 3.0))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    (loss_of(theirs) / 2 + loss_of(theirs, 3.0) / 2).backward()
    optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_state_survives_a_change_of_precision() -> None:
    model = network()
    wrapper = wrapped(model, precision="bfloat16")
    wrapper.update_params(loss_of(model))
    state = {**wrapper.state_dict(), "loss_scaler": {"scale": 2.0}}
    other = wrapped(model)
    other.load_state_dict(state)
    saved = [each["momentum_buffer"] for each in wrapper.optimizer.state.values()]
    loaded = [each["momentum_buffer"] for each in other.optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(saved, loaded, strict=True))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_fused_optimizer_skips_a_bad_step_by_itself(kind: type[torch.optim.Optimizer]) -> None:
    """The way taken on a GPU, where the host doesn't look; the CPU's fused kernels do the same."""
    ours, theirs = network(), network()
    fused = GuardedOptimWrapper(kind(ours.parameters(), lr=0.1, fused=True), clip_grad=dict(max_norm=1.0))
    fused.device = "cuda"  # only decides who looks
    plain = GuardedOptimWrapper(kind(theirs.parameters(), lr=0.1), clip_grad=dict(max_norm=1.0))
    for factor in (1.0, float("nan"), 2.0):
        fused.update_params(loss_of(ours, factor))
        plain.update_params(loss_of(theirs, factor))
    assert int(fused.left_out) == int(plain.left_out) == 1
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_kernel_is_this_runs_own() -> None:
    """torch would take over the saved one, which on a GPU would step along a bad gradient."""
    saved = GuardedOptimWrapper(torch.optim.SGD(network().parameters(), lr=0.5, foreach=True)).state_dict()
    wrapper = GuardedOptimWrapper(torch.optim.SGD(network().parameters(), lr=0.1, fused=True))
    wrapper.load_state_dict(saved)
    assert saved["param_groups"][0]["foreach"], "the checkpoint's own state stays"
    (group,) = wrapper.optimizer.param_groups
    assert group["lr"] == 0.5
    assert group["fused"] and not group["foreach"]
    wrapper.device = "cuda"  # only decides who looks
    before = [each.clone() for each in group["params"]]
    for each in group["params"]:
        each.grad = torch.full_like(each, torch.nan)
    wrapper.step()
    assert all(a.equal(b) for a, b in zip(before, group["params"], strict=True))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_all_parameters_at_once_are_the_same_to_the_bit(kind: type[torch.optim.Optimizer]) -> None:
    """What a CPU run is set to, against one parameter after the other."""
    ours, theirs = network(), network()
    options = dict(lr=0.1, weight_decay=0.01) | (dict(momentum=0.9) if kind is torch.optim.SGD else {})
    together = GuardedOptimWrapper(kind(ours.parameters(), foreach=True, **options))
    singly = GuardedOptimWrapper(kind(theirs.parameters(), foreach=False, **options))
    for factor in (1.0, 0.3, 2.0):
        together.update_params(loss_of(ours, factor))
        singly.update_params(loss_of(theirs, factor))
    assert all(a.equal(b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
