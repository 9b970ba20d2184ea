"""Going on with other images an iteration: at the same number of images seen, with this config's schedule."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssod.engine.train import train
from ssod.errors import UserError

Config = Callable[..., Path]
BIG = {"train_dataloader.batch_size": 4, "train_cfg.max_iters": 3}  # 12 images seen


def last(work_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(work_dir / "checkpoints" / "last.pth", weights_only=True)
    return content


def test_half_the_images_twice_the_iterations(toy_config: Config, tmp_path: Path, capfd: Any) -> None:
    train(toy_config(), work_dir=tmp_path, options=BIG)
    before = last(tmp_path)
    capfd.readouterr()
    result = train(toy_config(), work_dir=tmp_path, resume=True, options={"train_cfg.max_iters": 7})
    said = capfd.readouterr().out
    assert "iteration 3 becomes 6, at 12 images seen" in said and "--scale-to" in said
    after = last(tmp_path)
    assert result["iterations"] == after["meta"]["iter"] == 7
    assert result["images_seen"]["labeled"] == 14
    # The rate drops after 5 iterations of this config: 3 of the other were before it.
    assert before["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.1)
    assert after["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.01)
    # The momentum is taken along.
    assert after["optimizer"]["state"][0]["momentum_buffer"].abs().sum() > 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["iteration"]) for line in lines] == [
        ("train", 4), ("train", 6), ("val", 6), ("train", 7), ("val", 7)
    ]  # fmt: skip


def test_the_rate_is_the_one_of_a_run_that_was_never_stopped(toy_config: Config, tmp_path: Path) -> None:
    """Two chained schedules, whose rate depends on every step before."""
    config = toy_config(
        "param_scheduler = [dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=6),"
        " dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=8, T_max=6, eta_min=0.001)]\n"
    )
    train(config, work_dir=tmp_path / "whole", options={"train_cfg.max_iters": 7})
    train(config, work_dir=tmp_path / "parts", options=BIG)
    train(config, work_dir=tmp_path / "parts", resume=True, options={"train_cfg.max_iters": 7})
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts")
    rates = [each["optimizer"]["param_groups"][0]["lr"] for each in (whole, parts)]
    assert rates[0] == pytest.approx(rates[1])
    assert whole["param_schedulers"] == parts["param_schedulers"]


@pytest.mark.parametrize(
    ("before", "after", "starts"),
    [(2, 2, 0), (3, 3, 1), (4, 4, 1), (5, 5, 1), (6, 6, 0), (2, 4, 0), (4, 8, 0), (4, 0, 1)],
)
def test_burn_in_that_ends_between_two_iterations_starts_the_teacher(
    toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int, starts: int
) -> None:
    """Iteration 3 becomes 6; at 6 and later the model itself sees where its burn-in ends."""
    from ssod.registry import MODELS

    toy = MODELS.get("ToyModel")
    calls: list[torch.Tensor] = []
    monkeypatch.setattr(toy, "burn_in", before, raising=False)
    train(toy_config(), work_dir=tmp_path, options=BIG)
    student = last(tmp_path)["state_dict"]["student.weight"]
    monkeypatch.setattr(toy, "burn_in", after)
    monkeypatch.setattr(toy, "start", lambda self: calls.append(self.student.weight.detach().clone()))
    train(toy_config(), work_dir=tmp_path, resume=True, options={"train_cfg.max_iters": 7})
    assert len(calls) == starts and all(torch.equal(each, student) for each in calls)


def test_the_last_validation_counts_in_the_new_iterations(toy_config: Config, tmp_path: Path) -> None:
    """Validated after 2 of 3 big steps: that is 4 of 6, and the next one is due at 8."""
    options = {**BIG, "train_cfg.val_interval": 2}
    config = toy_config("model.update(bad_steps=())\n")
    train(config, work_dir=tmp_path, options=options)
    path = tmp_path / "checkpoints" / "last.pth"
    content = last(tmp_path)
    content["message_hub"]["runtime_info"]["validated_iter"] = 2  # as if it had been stopped before the end
    torch.save(content, path)
    train(config, work_dir=tmp_path, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines if line["kind"] == "val"] == [4, 8]


def test_a_schedule_that_is_over_is_refused(toy_config: Config, tmp_path: Path) -> None:
    train(toy_config(), work_dir=tmp_path, options=BIG)
    before = (tmp_path / "result.json").read_bytes()
    with pytest.raises(UserError, match=r"has seen 12 images, and this config's 6 iterations of 1x2 images"):
        train(toy_config(), work_dir=tmp_path, resume=True, options={"train_cfg.max_iters": 6})
    assert (tmp_path / "result.json").read_bytes() == before


def test_a_checkpoint_beyond_the_schedule_is_refused(toy_config: Config, tmp_path: Path, capfd: Any) -> None:
    """With as many images an iteration, whether the run was stopped or done; at its end it is done."""
    train(toy_config(), work_dir=tmp_path, options={"train_cfg.max_iters": 7})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    refused = r"is of iteration 7, beyond this config's train_cfg.max_iters=6: raise that"
    for resume in (True, tmp_path / "checkpoints" / "last.pth"):
        with pytest.raises(UserError, match=refused):
            train(toy_config(), work_dir=tmp_path, resume=resume, options={"train_cfg.max_iters": 6})
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capfd.readouterr()
    train(toy_config(), work_dir=tmp_path, resume=True, options={"train_cfg.max_iters": 7})
    assert "nothing to do" in capfd.readouterr().out
    text = (tmp_path / "result.json").read_text()
    (tmp_path / "result.json").write_text(text.replace('"done"', '"stopped"'))
    with pytest.raises(UserError, match=refused):
        train(toy_config(), work_dir=tmp_path, resume=True, options={"train_cfg.max_iters": 6})
