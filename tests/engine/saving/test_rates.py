"""A resume with other rates, decays or schedules goes on as a run that had them from the start would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssod.engine.train import train
from ssod.errors import UserError

Config = Callable[..., Path]
WARM_UP = "dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=6)"
COSINE = "dict(type='CosineAnnealingLR', by_epoch=False, eta_min=0.001)"  # to the end of the run


def last(work_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(work_dir / "checkpoints" / "last.pth", weights_only=True)
    return content


def groups(content: dict[str, Any]) -> list[dict[str, Any]]:
    """What the optimizer has of each group of parameters, mmengine's own for base values included."""
    base = content["optimizer"].get("base_param_settings")
    found = [*content["optimizer"]["param_groups"], *([] if base is None else [base])]
    return [{key: value for key, value in each.items() if key != "params"} for each in found]


def schedules(*listed: str) -> str:
    return f"param_scheduler = [{', '.join(listed)}]\n"


@pytest.mark.parametrize(
    ("before", "after", "iterations"),
    [
        ("", "optim_wrapper['optimizer'].update(lr=1e-4, weight_decay=0.1, momentum=0.5)\n", 4),
        (schedules(), schedules() + "optim_wrapper['optimizer'].update(lr=1e-4)\n", 4),
        (schedules(COSINE), schedules(COSINE), 4),  # its end is that of the run, which is longer now
        (schedules(WARM_UP, COSINE), schedules(COSINE), 3),
        (schedules(WARM_UP), schedules(), 3),
        (schedules(), schedules(WARM_UP), 3),
        (
            "optim_wrapper.update(paramwise_cfg=dict(bias_lr_mult=2.0))\n",
            "optim_wrapper.update(paramwise_cfg=dict(bias_lr_mult=3.0))\n",
            6,
        ),
    ],
    ids=["options", "no schedule", "length", "no warm-up", "none left", "a new one", "several groups"],
)
def test_rates_are_those_of_a_run_that_always_had_them(
    toy_config: Config, tmp_path: Path, capfd: Any, before: str, after: str, iterations: int
) -> None:
    train(toy_config(before), work_dir=tmp_path / "run", options={"train_cfg.max_iters": iterations})
    old = last(tmp_path / "run")
    train(toy_config(after), work_dir=tmp_path / "whole")
    capfd.readouterr()
    train(toy_config(after), work_dir=tmp_path / "run", resume=True)
    assert f"this config's at iteration {iterations}" in capfd.readouterr().out
    run, whole = last(tmp_path / "run"), last(tmp_path / "whole")
    assert groups(run) == groups(whole) != groups(old)
    assert run["param_schedulers"] == whole["param_schedulers"]


def test_momentum_is_taken_along(toy_config: Config, tmp_path: Path) -> None:
    """Every step after the resume is bad and left out, so the buffer stays what was taken along."""
    train(toy_config(), work_dir=tmp_path, options={"train_cfg.max_iters": 4})
    before = last(tmp_path)["optimizer"]["state"][0]["momentum_buffer"]
    bad = "optim_wrapper['optimizer'].update(lr=1e-4)\nmodel.update(bad_steps=(4, 5, 6, 7))\n"
    train(toy_config(bad), work_dir=tmp_path, resume=True)
    assert torch.equal(last(tmp_path)["optimizer"]["state"][0]["momentum_buffer"], before)


def test_a_longer_run_keeps_rates_that_do_not_depend_on_its_length(
    toy_config: Config, tmp_path: Path, capfd: Any
) -> None:
    """Nothing is said, and no bit is another: the schedule's end alone has moved."""
    config = toy_config(
        "param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[2, 5], gamma=0.1)]\n"
    )
    train(config, work_dir=tmp_path / "whole")
    train(config, work_dir=tmp_path / "parts", options={"train_cfg.max_iters": 4})
    capfd.readouterr()
    train(config, work_dir=tmp_path / "parts", resume=True)
    said = capfd.readouterr().out
    assert "this config's at" not in said and "other options" not in said
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts")
    assert groups(whole) == groups(parts) and whole["param_schedulers"] == parts["param_schedulers"]
    assert all(
        torch.equal(whole["state_dict"][name], parts["state_dict"][name]) for name in whole["state_dict"]
    )


def test_an_optimizer_of_other_groups_is_refused(toy_config: Config, tmp_path: Path) -> None:
    train(toy_config(), work_dir=tmp_path, options={"train_cfg.max_iters": 4})
    more = "optim_wrapper.update(paramwise_cfg=dict(bias_lr_mult=2.0))\n"
    with pytest.raises(
        UserError, match=r"has 1 groups of parameters .* this config \d+: resume with"
    ) as caught:
        train(toy_config(more), work_dir=tmp_path, resume=True)
    assert "\n" not in str(caught.value)
