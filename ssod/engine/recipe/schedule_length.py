"""A recipe at another number of iterations: schedule, warm-up, burn-in, ramp and intervals in proportion."""

import copy
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from mmengine.config import Config

from ssod.engine.recipe.scaling_rules import Factors, scale_values, spell_out
from ssod.errors import UserError


def at_length(config: Config, iterations: int) -> Config:
    """A copy of a completed config that trains for so many iterations.

    What counts in iterations keeps its share of the run: the rate's warm-up and milestones, burn-in and ramp
    of `unsup_weight`, validations and checkpoints. What belongs to a step stays: rate, batch, averages. The
    stages of a training keep their proportions, too. Raises UserError for a schedule that does not fit, and
    for what no rule is known.
    """
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise UserError(f"iterations is {iterations!r}: give a whole number of at least 1")
    made = Config(config.to_dict())
    length = Fraction(iterations, int(config.train_cfg.max_iters))
    factors = Factors(Fraction(1), Fraction(1), length, f"iterations={iterations}")
    spell_out(made)
    changes = (made.get("stages") or {}).get("teacher")
    if changes:
        made.stages.teacher = _teacher_changes(made, changes, factors)
    scale_values(made, factors)
    return made


def _teacher_changes(config: Config, changes: Mapping[str, Any], factors: Factors) -> dict[str, Any]:
    """`stages.teacher` with what it says of the schedule scaled."""
    from ssod.engine.offline.stage_plan import teacher_config  # late: it brings mmdet's datasets

    teacher = teacher_config(config, changes)
    spell_out(teacher)
    scale_values(teacher, factors)
    scaled: dict[str, Any] = copy.deepcopy(dict(changes))
    for name in ("train_cfg", "default_hooks", "param_scheduler"):
        if name in scaled:
            scaled[name] = _in_place_of(scaled[name], teacher.to_dict()[name])
    return scaled


def _in_place_of(changes: Any, scaled: Any) -> Any:
    """The scaled values of what the changes name; a list is replaced as a whole."""
    if not isinstance(changes, Mapping):
        return scaled
    return {
        key: _in_place_of(value, scaled[key]) if key in scaled else value for key, value in changes.items()
    }
