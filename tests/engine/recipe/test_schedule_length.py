"""A recipe at another length: what counts in iterations keeps its share of the run, what a step has stays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from ssod.core.schedules import Ramp
from ssod.engine.config import load_config
from ssod.engine.offline.stage_plan import teacher_config
from ssod.engine.recipe.schedule_length import at_length
from ssod.errors import UserError

from ...conftest import PROJECT
from ...reference.recipes import small
from .test_scaling_rules import SCHEDULES, rates

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch, data_root: Any, weights_root: Any) -> None:
    monkeypatch.setenv("SSOD_DATA_ROOT", str(data_root))
    monkeypatch.setenv("SSOD_WEIGHTS_ROOT", str(weights_root))


def load(name: str) -> Config:
    return load_config(PROJECT / "configs" / f"{name}.py")


def test_shapes_at_a_third(roots: None) -> None:
    """Every number of the schedule, by hand: 1,800 iterations become 600."""
    config = load("soft_teacher/shapes")
    made = at_length(config, 600)
    assert (made.train_cfg.max_iters, made.train_cfg.val_interval) == (600, 100)
    warm, cosine = made.param_scheduler
    assert (warm.begin, warm.end) == (0, 17)  # 50 / 3
    assert (cosine.begin, cosine.end, cosine.T_max) == (400, 600, 200)
    assert made.model.method.unsup_weight == dict(value=1.0, start=167)  # 500 / 3
    assert made.default_hooks.checkpoint.interval == 167
    assert made.default_hooks.scalars == config.default_hooks.scalars
    assert made.optim_wrapper == config.optim_wrapper
    assert made.model.teacher == config.model.teacher
    assert made.train_dataloader == config.train_dataloader
    assert config.train_cfg.max_iters == 1800, "the config itself is another one"


def test_bccd_at_a_fifth(roots: None) -> None:
    made = at_length(load("mean_teacher/bccd_10"), 300)
    warm, drops = made.param_scheduler
    assert (warm.end, drops.end, drops.milestones) == (20, 300, [200, 270])
    assert made.train_cfg.val_interval == 60
    assert made.model.method.unsup_weight == dict(value=5.0, length=60, shape="sigmoid")


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("iterations", [400, 1600])
def test_the_rate_is_the_same_at_the_same_share_of_the_run(name: str, iterations: int) -> None:
    """mmengine's own schedules are the oracle; `test_scaling_rules` has the numbers that all divide."""
    config = small(param_scheduler=[dict(by_epoch=False, **SCHEDULES[name])])
    made = at_length(config, iterations)
    steps = [100, 300, 500, 700]
    now = rates(made, [step * iterations // 800 for step in steps])
    assert now == pytest.approx(rates(config, steps), rel=0.03)
    assert made.optim_wrapper.optimizer.lr == config.optim_wrapper.optimizer.lr


@settings(max_examples=40, deadline=None)
@given(iterations=st.integers(8, 20_000))
def test_any_length(iterations: int) -> None:
    made = at_length(small(), iterations)
    assert made.train_cfg.max_iters == max(each.end for each in made.param_scheduler) == iterations
    drops = made.param_scheduler[1].milestones
    assert drops[0] < drops[1] < iterations
    weight = Ramp.of(made.model.method.unsup_weight)
    assert weight.start == max(1, (10 * iterations + 400) // 800)
    assert weight.length == max(1, (30 * iterations + 400) // 800)


def test_there_and_back() -> None:
    once = at_length(small(), 800)
    assert at_length(at_length(once, 1600), 800).to_dict() == once.to_dict() == at_length(once, 800).to_dict()


def test_a_stage_with_a_schedule_of_its_own_keeps_its_share(roots: None) -> None:
    drops = [dict(type="MultiStepLR", by_epoch=False, end=900, milestones=[600], gamma=0.1)]
    own = dict(train_cfg=dict(max_iters=900), param_scheduler=drops)
    config = load("stac/shapes")
    config.stages.teacher = own
    made = at_length(config, 600)
    teacher = teacher_config(made, made.stages.teacher)
    assert (teacher.train_cfg.max_iters, teacher.train_cfg.val_interval) == (300, 100)
    assert teacher.param_scheduler[0].milestones == [200] and teacher.param_scheduler[0].end == 300
    assert set(made.stages.teacher) == set(own)
    config.stages.teacher = {}
    plain = at_length(config, 600)
    assert teacher_config(plain, plain.stages.teacher).train_cfg == plain.train_cfg


REFUSED = [
    pytest.param(small(), 0, "iterations is 0: give a whole number", id="none"),
    pytest.param(small(), 1.5, "iterations is 1.5: give a whole number", id="half"),
    pytest.param(
        small(param_scheduler=[dict(type="Mine", by_epoch=False)]),
        400,
        "iterations=400: .* is a Mine",
        id="rule",
    ),
    pytest.param(small(), 2, "iterations=2: .*milestones.* do not fit into the 2 iterations", id="too short"),
]


@pytest.mark.parametrize(("config", "iterations", "said"), REFUSED)
def test_what_is_refused(config: Config, iterations: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        at_length(config, iterations)
