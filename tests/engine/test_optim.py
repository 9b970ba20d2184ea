"""GuardedOptimWrapper: clipping as torch does it, no step along a gradient that is not finite."""

import copy

import pytest
import torch
from torch import nn

from ssod.engine.optim import GuardedOptimWrapper
from ssod.errors import UserError


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


def decide_on_device(wrapper: GuardedOptimWrapper, way: str) -> GuardedOptimWrapper:
    """The wrapper as on a GPU, in float32 or in float16."""
    if way == "device":
        wrapper.device = "cuda"  # only decides who looks
    else:
        wrapper.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    return wrapper


def litter() -> None:
    """Leaves bare memory full of a number that would show, where a network's gradients lie."""
    scraps = [torch.full((64, 64), 1e4) for _ in range(64)]
    del scraps


FUSED = {
    "momentum": (torch.optim.SGD, dict(momentum=0.9, weight_decay=0.1)),
    "nesterov": (torch.optim.SGD, dict(momentum=0.9, nesterov=True)),
    "sgd": (torch.optim.SGD, {}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, dict(amsgrad=True)),
}


@pytest.mark.parametrize("way", ["device", "scaler"])
@pytest.mark.parametrize("name", FUSED)
def test_a_first_step_that_is_skipped_leaves_no_trace(name: str, way: str) -> None:
    """Fused SGD would make bare memory of its momentum and not fill it."""
    kind, options = FUSED[name]
    ours, theirs = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
    theirs.load_state_dict(ours.state_dict())
    fused = GuardedOptimWrapper(kind(ours.parameters(), lr=0.1, fused=True, **options))
    decide_on_device(fused, way)
    plain = GuardedOptimWrapper(kind(theirs.parameters(), lr=0.1, fused=False, **options))
    images = torch.randn(8, 64)
    for factor in (float("nan"), float("inf"), 1.0, 0.5, float("nan"), 2.0):
        litter()
        fused.update_params(factor * ours(images).square().mean())
        plain.update_params(factor * theirs(images).square().mean())
        assert bool(fused.taken) == (abs(factor) < float("inf"))
    torch.testing.assert_close(ours.weight, theirs.weight)
    assert int(fused.left_out) == int(plain.left_out) == 3


@pytest.mark.parametrize("way", ["device", "scaler"])
@pytest.mark.parametrize("name", FUSED)
def test_a_gradient_that_comes_later_than_others(name: str, way: str) -> None:
    """Of a parameter, and of a group that is added after some steps."""
    kind, options = FUSED[name]

    def trained(fused: bool) -> list[nn.Parameter]:
        first, later, added = (nn.Parameter(torch.ones(4)) for _ in range(3))
        wrapper = GuardedOptimWrapper(kind([first, later], lr=0.1, fused=fused, **options))
        if fused:
            decide_on_device(wrapper, way)
        for step in range(5):
            if step == 3:
                wrapper.optimizer.add_param_group({"params": [added]})
            used = [first, *([later] if step else []), *([added] if step >= 3 else [])]
            wrapper.update_params(torch.stack([each.square().sum() for each in used]).sum())
        return [first, later, added]

    for ours, theirs in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_resumed_momentum_stays() -> None:
    model, other = network(), network()
    first = GuardedOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True))
    for _ in range(2):
        first.update_params(loss_of(model))
    second = GuardedOptimWrapper(torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, fused=True))
    other.load_state_dict(model.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for wrapper, one in ((first, model), (second, other)):
        wrapper.update_params(loss_of(one))
    assert all(a.equal(b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_fused_steps_with_dampening_are_refused() -> None:
    """There a first step is no ordinary one: its momentum is the whole gradient."""
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1, momentum=0.9, dampening=0.5, fused=True)
    with pytest.raises(UserError, match="dampening; set fused=False"):
        GuardedOptimWrapper(optimizer)


@pytest.mark.parametrize("fused", [True, False])
def test_scaler_and_teacher_have_one_verdict(fused: bool) -> None:
    """A norm that overflows, of elements that do not: no step, and no average of it."""
    model = nn.Linear(4, 4, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-13, momentum=0.9, fused=fused)
    wrapper, before = decide_on_device(GuardedOptimWrapper(optimizer), "scaler"), model.weight.clone()
    wrapper.update_params((model(torch.ones(2, 4)) * 1e22).sum())
    assert not wrapper.taken and wrapper.left_out == 1
    assert torch.equal(model.weight, before)
    assert wrapper.scaler is not None and wrapper.scaler.get_scale() == 2.0, "as after any other bad step"
    wrapper.update_params((model(torch.ones(2, 4)) * 1e12).sum())
    assert wrapper.taken and not torch.equal(model.weight, before)
