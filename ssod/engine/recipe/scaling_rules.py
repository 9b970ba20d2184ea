"""What of a recipe changes with the images of a step, and how: rate, schedule, averages, burn-in."""

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from ssod.core.schedules import Ramp
from ssod.core.selection import ClassAdaptive
from ssod.errors import UserError
from ssod.registry import HOOKS, LOOPS, METHODS, TEACHERS

LINEAR = ("SGD",)
SQUARE_ROOT = ("Adam", "AdamW", "RMSprop")
# What each schedule of the rate counts in iterations, besides `begin` and `end`.
SCHEDULES: Mapping[str, str | None] = {
    **dict.fromkeys(("ConstantLR", "ExponentialLR", "LinearLR", "PolyLR", "QuadraticWarmupLR")),
    "MultiStepLR": "milestones",
    "StepLR": "step_size",
    "CosineAnnealingLR": "T_max",
    "CosineRestartLR": "periods",
}
FOREVER = 10**9  # mmengine's `end` of a schedule that has none


@dataclass(frozen=True)
class Factors:
    """New over old: `iteration`, images of an iteration; `step`, of an optimizer step; `length`, of a run.

    The first two differ where the number of iterations that an optimizer step gathers changes. `length` is
    the images of the whole training (schedule_length.py). `asked` names in messages what is to be scaled.
    """

    iteration: Fraction
    step: Fraction
    length: Fraction = Fraction(1)
    asked: str = "--scale-to"

    def iterations(self, count: float) -> int:
        """The iterations of the same share of the run: rounded, at least 1; 0 and "for ever" stay."""
        if count <= 0 or count >= FOREVER:
            return int(count)
        return max(1, math.floor(Fraction(count) * self.length / self.iteration + Fraction(1, 2)))

    def rate(self, value: float, optimizer: str) -> float:
        """The learning rate: x k for SGD (Goyal et al. 2017), x sqrt(k) for Adam (Malladi et al. 2022)."""
        if optimizer in LINEAR:
            return float(Fraction(value) * self.step)
        return value * math.sqrt(self.step)


def spell_out(config: Config) -> None:
    """Writes into the config what its classes take by default and `scale_values` has to change."""
    method = config.model.get("method")
    for registry, spec, option in (
        (LOOPS, config.train_cfg, "val_interval"),
        (HOOKS, config.default_hooks.get("checkpoint"), "interval"),
        (TEACHERS, config.model.get("teacher"), "decay"),
    ):
        value = _default(registry, spec, option)
        if value is not None:
            spec.setdefault(option, value)
    weight = _default(METHODS, method, "unsup_weight")
    if isinstance(weight, Ramp):
        method.setdefault("unsup_weight", asdict(weight))
    for policy in _adaptive(method):
        policy.setdefault("decay", inspect.signature(ClassAdaptive).parameters["decay"].default)


def _default(registry: Registry, spec: Any, option: str) -> Any:
    """An option's default in the class that a part of a config names; None where it has none."""
    kind = registry.get(spec["type"]) if spec and spec.get("type") else None
    parameter = inspect.signature(kind).parameters.get(option) if kind is not None else None
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _adaptive(node: Any) -> Iterator[Any]:
    """Every selection of type ClassAdaptive below a method's config."""
    if isinstance(node, Mapping):
        if node.get("type") == ClassAdaptive.__name__:
            yield node
        for value in node.values():
            yield from _adaptive(value)


def scale_values(config: Config, factors: Factors) -> None:
    """Scales the values of a config that was spelled out, in place; UserError for what has no rule.

    What stays: weight decay, momentum and betas, clipping, the weights of losses, score bounds.
    """
    before = int(config.train_cfg.max_iters)
    _scale(config.train_cfg, ("max_iters", "val_interval", "val_begin"), factors)
    _scale(config.default_hooks.get("checkpoint"), ("interval",), factors)
    optimizer: Any = config.optim_wrapper.get("optimizer") or {}
    name = str(optimizer.get("type"))
    if factors.step != 1:
        _scale_rate(optimizer, name, factors)
    schedulers = config.get("param_scheduler") or []
    for number, one in enumerate([schedulers] if isinstance(schedulers, Mapping) else schedulers):
        _scale_schedule(one, number, factors, name, (before, config.train_cfg.max_iters))
    _scale_averages(config, factors)


def _scale_rate(optimizer: Any, name: str, factors: Factors) -> None:
    """Scales the learning rate; UserError for an optimizer without a rule."""
    if name not in (*LINEAR, *SQUARE_ROOT):
        raise UserError(
            f"{factors.asked}: no rule is known for the learning rate of {name} (SGD: linear; "
            f"{', '.join(SQUARE_ROOT)}: square root): use one of these, or scale the config by hand"
        )
    if not isinstance(optimizer.get("lr"), int | float):
        raise UserError(
            f"{factors.asked}: optim_wrapper.optimizer.lr is {optimizer.get('lr')!r}: give a number"
        )
    optimizer.lr = factors.rate(optimizer.lr, name)


def _scale(node: Any, options: tuple[str, ...], factors: Factors) -> None:
    """Scales numbers of iterations, those of them that are there."""
    for option in options:
        if isinstance(node, Mapping) and isinstance(node.get(option), int | float):
            node[option] = factors.iterations(node[option])  # type: ignore[index]


def _scale_averages(config: Config, factors: Factors) -> None:
    """Scales what looks back or waits: moving averages (Busbridge et al. 2023), burn-in and ramp."""
    teacher, method = config.model.get("teacher"), config.model.get("method")
    if teacher and "decay" in teacher:
        teacher.decay = teacher.decay ** float(factors.step)  # it follows optimizer steps
    if method:
        _scale(method.get("unsup_weight"), ("start", "length"), factors)
    for policy in _adaptive(method):
        policy.decay = policy.decay ** float(factors.iteration)  # it counts in every iteration


def _scale_schedule(
    one: Any, number: int, factors: Factors, optimizer: str, max_iters: tuple[int, int]
) -> None:
    """Scales one schedule of the learning rate; max_iters: before and after."""
    kind = str(one.get("type"))
    if kind not in SCHEDULES:
        raise UserError(
            f"{factors.asked}: param_scheduler.{number} is a {kind}, of which it is not known what counts "
            f"iterations: use one of {', '.join(sorted(SCHEDULES))}, or scale the config by hand"
        )
    begin, end, option = one.get("begin", 0), one.get("end"), SCHEDULES[kind]
    _scale(one, ("begin", "end"), factors)
    new_begin = one.get("begin", 0)
    if end is not None:
        one.end = max(one.end, new_begin + 2)  # mmengine's divide by end - begin - 1
    if option == "milestones":
        limits = (max_iters[0] - begin, max_iters[1] - new_begin)
        one.milestones = _scale_milestones(one.milestones, f"param_scheduler.{number}", factors, limits)
    elif option == "periods":
        one.periods = [factors.iterations(period) for period in one.periods]
    elif option == "T_max" and end is not None and one.get("T_max") == end - begin:
        one.T_max = one.end - new_begin  # rounded together
    elif option is not None:
        _scale(one, (option,), factors)
    if kind == "ExponentialLR":
        one.gamma = one.gamma ** float(factors.iteration / factors.length)
    if one.get("eta_min") and factors.step != 1:
        one.eta_min = factors.rate(one.eta_min, optimizer)


def _scale_milestones(values: list[int], place: str, factors: Factors, limits: tuple[int, int]) -> list[int]:
    """The scaled milestones: what was distinct stays so, what was below the end of training, too.

    limits: the end, counted from the schedule's begin, before and after.
    """
    scaled: dict[int, int] = {}
    bound = limits[1]
    for value in sorted(set(values), reverse=True):
        wanted = factors.iterations(value)
        if value < limits[0]:
            bound = wanted = min(wanted, bound - 1)
        scaled[value] = wanted
    if scaled and min(scaled.values()) < 1 <= min(scaled):
        raise UserError(
            f"{factors.asked}: {place}.milestones={list(values)} do not fit into the {limits[1]} iterations "
            "that are left: ask for more of them, or leave milestones out"
        )
    return [scaled[value] for value in values]
