"""Rates, decays and schedules of a resumed run: the checkpoint's, or this config's where it has others."""

import warnings
from collections.abc import Mapping
from typing import Any

from ssod.errors import UserError

Group = dict[str, Any]  # of an optimizer's parameters

_KERNELS = frozenset({"fused", "foreach"})  # how a step is computed: load_state_dict in optim.py
_PLACE = frozenset({"last_step", "_global_step", "_last_value"})  # how far a schedule has come


def differ(runner: Any, checkpoint: Mapping[str, Any]) -> bool:
    """Whether this config's optimizer or schedules, none of which has moved yet, are not the checkpoint's.

    What is compared is what was built, so defaults count, such as a schedule's end, which is the run's.
    UserError for an optimizer with other groups of parameters, to which the saved state does not fit.
    """
    saved, fresh = _groups(checkpoint["optimizer"]), runner.optim_wrapper.param_groups
    if len(saved) != len(fresh):
        raise UserError(
            f"checkpoint {runner._load_from} has {len(saved)} groups of parameters in its optimizer, and "
            f"this config {len(fresh)}: resume with the run's own optim_wrapper (paramwise_cfg)"
        )
    schedules = [_without(each.state_dict(), _PLACE) for each in runner.param_schedulers or ()]
    if schedules != [_without(each, _PLACE) for each in checkpoint.get("param_schedulers") or ()]:
        return True
    scheduled = {each["param_name"] for each in schedules}
    if "momentum" in scheduled:
        scheduled.add("betas")  # Adam's momentum is the first of them
    compared = fresh[0].keys() & saved[0].keys() - {"params", *_KERNELS, *scheduled}
    return any(new[key] != old[key] for new, old in zip(fresh, saved, strict=True) for key in compared)


def take_from_config(runner: Any, checkpoint: dict[str, Any]) -> None:
    """Gives the checkpoint the rates, decays and schedules that this config has at its iteration.

    Momentum and averages of gradients stay the checkpoint's.
    """
    iteration = checkpoint["meta"]["iter"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no step of the optimizer comes before a schedule's
        for _ in range(iteration):
            for scheduler in runner.param_schedulers or ():
                scheduler.step()
    checkpoint.pop("param_schedulers", None)
    rates = []
    for old, new in zip(_groups(checkpoint["optimizer"]), runner.optim_wrapper.param_groups, strict=True):
        rates.append((old["lr"], new["lr"]))
        params = old["params"]
        old.clear()  # of a schedule that is no more, too
        old.update(new, params=params)
    before, now = next((each for each in rates if each[0] != each[1]), rates[0])
    if before != now:
        text = f"learning rate {before:.4g} -> {now:.4g}: this config's at iteration {iteration}"
        runner.logger.warning(text)
        runner.call_hook("after_notice", text=text)


def _groups(optimizer: Mapping[str, Any]) -> list[Group]:
    """The groups of a saved optimizer; where there are several also mmengine's own, for base values."""
    base = optimizer.get("base_param_settings")
    return [*optimizer["param_groups"], *([] if base is None else [base])]


def _without(values: Mapping[str, Any], names: frozenset[str] | set[str]) -> Group:
    return {key: value for key, value in values.items() if key not in names}
