"""The rules of --scale-to against mmengine's schedules and closed forms; what holds for any size."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from ssod.engine.recipe.scaling import scale
from ssod.engine.recipe.step_size import Size
from ssod.errors import UserError

from ...reference.recipes import small

pytestmark = pytest.mark.usefixtures("registered")


def to(config: Config, text: str) -> Config:
    return scale(config, Size.parse(text)).config


def rates(config: Config, steps: list[int]) -> list[float]:
    """The learning rates that mmengine's schedules give at some iterations."""
    rate, made = config.optim_wrapper.optimizer.lr, []
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    for one in config.param_scheduler:
        options = {"end": config.train_cfg.max_iters, **one}
        made.append(PARAM_SCHEDULERS.build(options, default_args={"optimizer": optimizer}))
    found = []
    for _ in range(max(steps) + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for one in made:
            one.step()
    return [found[step] for step in steps]


SCHEDULES: dict[str, dict[str, Any]] = {
    "drops": dict(type="MultiStepLR", milestones=[400, 600], gamma=0.1),
    "drops of a schedule that begins late": dict(type="MultiStepLR", begin=200, milestones=[200, 400]),
    "a drop now and then": dict(type="StepLR", step_size=200, gamma=0.5),
    "cosine": dict(type="CosineAnnealingLR", begin=400, end=800, T_max=400, eta_min_ratio=0.01),
    "cosine to a rate": dict(type="CosineAnnealingLR", end=800, T_max=800, eta_min=0.001),
    "restarts": dict(type="CosineRestartLR", periods=[240, 560], restart_weights=[1.0, 0.5], eta_min=0.001),
    "polynomial": dict(type="PolyLR", end=800, power=0.9, eta_min=0.001),
    "exponential": dict(type="ExponentialLR", gamma=0.999),
    "constant, then 1": dict(type="ConstantLR", factor=0.5, end=400),
    "warm-up": dict(type="LinearLR", start_factor=0.1, end=400),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_is_the_same_function_of_the_images_seen(name: str) -> None:
    """mmengine's own schedules: at a quarter of the images a quarter of the rate, four times as late."""
    config = small(param_scheduler=[{"by_epoch": False, **SCHEDULES[name]}])
    steps = [0, 100, 300, 398, 410, 500, 620, 700]
    scaled = to(config, "2x1+4")
    before, after = rates(config, steps), rates(scaled, [4 * step for step in steps])
    assert len(set(before)) > 1
    assert [4 * rate for rate in after] == pytest.approx(before, rel=2e-2)


def test_averages_forget_by_images() -> None:
    """What is left of the first weights after 800 x 40 images is the same; so with ClassAdaptive's counts."""
    method = dict(type="FixMatch", min_score=dict(type="ClassAdaptive", num_classes=3, decay=0.99))
    config = small(model=dict(teacher=dict(type="EMATeacher"), method=method))
    model = to(config, "2x1+4").model
    assert model.teacher.decay ** (4 * 800) == pytest.approx(0.999**800)  # EMATeacher's default
    assert model.method.min_score.decay ** (4 * 800) == pytest.approx(0.99**800)


def test_defaults_are_scaled_too() -> None:
    """UnbiasedTeacher waits 2,000 steps, ClassAdaptive has 0.999, a loop 1,000, checkpoints 500."""
    selection = dict(type="ClassAdaptive", num_classes=3)
    config = small(
        model=dict(teacher=None, method=dict(type="UnbiasedTeacher", min_score=selection)),
        train_cfg=dict(type="SemiTrainLoop", max_iters=800, val_begin=40),
        default_hooks=dict(checkpoint=dict(type="Checkpoints"), timer=None),
    )
    scaled = to(config, "4x1+4")
    method = scaled.model.method
    assert method.unsup_weight == dict(value=4.0, start=4_000, length=0, shape="linear")
    assert method.min_score.decay == pytest.approx(math.sqrt(0.999))
    assert scaled.default_hooks == dict(checkpoint=dict(type="Checkpoints", interval=1_000), timer=None)
    assert scaled.train_cfg == dict(type="SemiTrainLoop", max_iters=1_600, val_interval=2_000, val_begin=80)


def test_what_is_not_there_stays_away() -> None:
    """A method whose weight is constant, no teacher, no checkpoints."""
    model = dict(teacher=None, method=dict(type="STAC"))
    scaled = to(small(model=model, default_hooks=dict(checkpoint=None)), "1x1+4")
    assert scaled.model == model and scaled.default_hooks == dict(checkpoint=None)
    assert to(small(model=dict(teacher=None, method=None)), "1x1+4").train_cfg.max_iters == 6_400


def test_accumulation_reaches_the_published_batch_without_another_rate() -> None:
    """1 process gathers 8 iterations: 40 images an optimizer step as published, 8 times the iterations."""
    wrapper = dict(small().optim_wrapper, accumulative_counts=8)
    selection = dict(type="ClassAdaptive", num_classes=3, decay=0.99)
    method = dict(type="FixMatch", unsup_weight=dict(value=1.0, start=10), min_score=selection)
    model = dict(teacher=dict(type="EMATeacher", decay=0.9), method=method)
    scaled = to(small(optim_wrapper=wrapper, model=model), "1x1+4")
    assert scaled.optim_wrapper.optimizer.lr == 0.01 and scaled.model.teacher.decay == 0.9
    assert scaled.train_cfg.max_iters == 6_400 and scaled.param_scheduler[1].milestones == [3_200, 4_800]
    assert scaled.model.method.unsup_weight.start == 80
    assert scaled.model.method.min_score.decay == pytest.approx(0.99 ** (1 / 8))  # in every iteration
    assert scaled.written_for == dict(world_size=1, accumulative_counts=8)
    assert to(scaled, "1x1+4") == scaled


def test_other_samplers_have_a_batch_size_alone() -> None:
    """Also a batch size inside the sampler follows."""
    plain = small(train_dataloader=dict(batch_size=2, sampler=dict(type="InfiniteSampler")))
    assert to(plain, "8x1").train_dataloader.batch_size == 1
    sampler = dict(type="LabeledUnlabeledSampler", counts=(1, 4), batch_size=5)
    scaled = to(small(train_dataloader=dict(batch_size=5, sampler=sampler)), "8x2+3")
    assert scaled.train_dataloader == dict(batch_size=5, sampler={**sampler, "counts": (2, 3)})


# ---------------------------------------------------------------- properties

SIZES = st.builds(
    lambda world, labeled, unlabeled: Size(world, (labeled, unlabeled)),
    st.integers(1, 64),
    st.integers(1, 8),
    st.integers(1, 16),
)


@settings(max_examples=30, deadline=None)
@given(SIZES)
def test_to_the_same_size_is_the_identity(size: Size) -> None:
    config = scale(small(), size).config
    again = scale(config, size)
    assert again.config == config and again.rows == () and "nothing changes" in str(again)


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_there_and_back_is_the_first_config_up_to_rounding(size: Size) -> None:
    config, factor = small(), size.an_iteration / 40
    back = scale(scale(config, size).config, Size(8, (1, 4))).config
    assert back.written_for == config.written_for and back.train_dataloader == config.train_dataloader
    assert back.optim_wrapper.optimizer.lr == pytest.approx(0.01, rel=1e-12)
    assert back.model.teacher.decay == pytest.approx(0.9, rel=1e-12)
    # A rounding is worth `factor` iterations of the first size; a milestone may be moved by its neighbours.
    bound = 2.5 * max(factor, 1)
    for ours, theirs in zip(counts_of(back), counts_of(config), strict=True):
        assert abs(ours - theirs) <= bound


def counts_of(config: Config) -> list[int]:
    """All that is counted in iterations."""
    (warm, steps), train, ramp = config.param_scheduler, config.train_cfg, config.model.method.unsup_weight
    schedule = [train.max_iters, train.val_interval, warm.end, steps.end, *steps.milestones]
    return [*schedule, config.default_hooks.checkpoint.interval, ramp.start, ramp.length]


@settings(max_examples=60, deadline=None)
@given(SIZES, st.lists(st.integers(1, 799), min_size=1, max_size=4, unique=True))
def test_milestones_stay_in_order_and_below_the_end(size: Size, milestones: list[int]) -> None:
    drops = dict(type="MultiStepLR", by_epoch=False, milestones=sorted(milestones))
    try:
        scaled = scale(small(param_scheduler=[drops]), size).config
    except UserError as error:
        assert "do not fit" in str(error) and size.an_iteration > 40 * 800 / 8
        return
    found = scaled.param_scheduler[0].milestones
    assert len(found) == len(milestones) and found[0] >= 1 and found[-1] < scaled.train_cfg.max_iters
    assert all(one < other for one, other in pairwise(found))


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_the_rate_times_its_steps_and_the_images_stay(size: Size) -> None:
    """Linear rule: rate x iterations is the same, and so are the images of the run, up to half a step."""
    scaled = scale(small(), size).config
    iterations = scaled.train_cfg.max_iters
    assert iterations * size.an_iteration == pytest.approx(800 * 40, abs=size.an_iteration / 2)
    exact = Fraction(800 * 40, size.an_iteration)
    assert scaled.optim_wrapper.optimizer.lr * exact == pytest.approx(0.01 * 800)
    assert all(count >= 1 for count in counts_of(scaled))


def test_drops_behind_the_end_and_at_one_place_stay_so() -> None:
    drops = dict(type="MultiStepLR", by_epoch=False, milestones=[600, 600, 800, 900])
    found = to(small(param_scheduler=drops), "16x1+4").param_scheduler  # one schedule, no list
    assert found.milestones == [300, 300, 400, 450]


def test_a_schedule_to_the_end_of_time_stays_so() -> None:
    forever = dict(type="LinearLR", by_epoch=False, begin=0, end=10**9)
    assert to(small(param_scheduler=[forever]), "1x1+4").param_scheduler == [forever]


def test_a_warm_up_keeps_two_steps() -> None:
    """mmengine divides by end - begin - 1."""
    config = to(small(), "64x8+32")  # 2,560 images of 40
    assert config.param_scheduler[0].end == 2 and rates(config, [0, 1]) == pytest.approx([0.064, 0.64])


def test_the_config_itself_stays_as_it_is() -> None:
    config = small()
    before = config.to_dict()
    to(config, "2x1+4")
    assert config.to_dict() == before == small().to_dict()
