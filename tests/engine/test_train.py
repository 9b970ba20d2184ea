"""Whole runs of a toy in this process: files, resume, signals, divergence, refusals."""

import gc
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssod.engine.config import load_config
from ssod.engine.faults.finite_guard import DivergedError
from ssod.engine.train import train
from ssod.errors import UserError

Config = Callable[..., Path]


def weights(work_dir: Path, name: str = "last") -> dict[str, Any]:
    content = torch.load(work_dir / "checkpoints" / f"{name}.pth", weights_only=False)
    return dict(content["state_dict"])


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def lines(work_dir: Path, kind: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def logged(work_dir: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl has of each log interval, without times."""
    timed = ("seconds_per_step", "data_seconds_per_step")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines(work_dir, "train")]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_leaves_its_files(toy_config: Config, tmp_path: Path, capfd: Any) -> None:
    out = tmp_path / "run"
    result = train(toy_config(), work_dir=out, seed=7)
    assert result == json.loads((out / "result.json").read_text())
    assert (result["status"], result["iterations"], result["seed"]) == ("done", 8, 7)
    assert result["images_seen"] == {"labeled": 16, "unlabeled": 0}
    assert result["split"]["num_labeled"] == 10
    assert result["pseudo_labels"]["boxes_per_image"] == 2.5
    assert set(result["metrics"]) == {"teacher", "student"}
    assert [line["iteration"] for line in lines(out, "train")] == [2, 4, 6, 8]
    assert [line["iteration"] for line in lines(out, "val")] == [4, 8]
    last = lines(out, "val")[-1]
    assert result["metrics"]["teacher"]["bbox_mAP"] == last["teacher/bbox_mAP"]
    assert (out / "curves.png").read_bytes()[1:4] == b"PNG"
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == [
        "best_student.pth",
        "best_teacher.pth",
        "iter_00000006.pth",
        "iter_00000008.pth",
        "last.pth",
    ]
    assert {p.name for p in out.iterdir()} == {
        *("result.json", "metrics.jsonl", "curves.png", "config.py", "train.log", "checkpoints"),
        *(".lock", "tensorboard"),
    }
    printed, complained = capfd.readouterr()
    assert complained == ""
    assert "noise" not in printed and "mmengine" not in printed
    assert "8/8" in printed and "teacher" in printed
    assert "noise of a metric" in (out / "train.log").read_text()


def test_what_follows_in_the_process_meets_no_closed_log(toy_config: Config, tmp_path: Path) -> None:
    from mmengine.model import BaseModule

    train(toy_config(), work_dir=tmp_path / "run")
    BaseModule().init_weights()  # mmengine writes where weights come from to each file of its newest logger


def test_the_dumped_config_repeats_the_run(toy_config: Config, tmp_path: Path) -> None:
    train(toy_config(), work_dir=tmp_path / "a", seed=3)
    train(tmp_path / "a" / "config.py", work_dir=tmp_path / "b")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    train(toy_config(), work_dir=tmp_path / "c", seed=4)
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize("stop_at", [2, 4, 7])
def test_resume_is_bit_exact(toy_config: Config, tmp_path: Path, stop_at: int) -> None:
    config = toy_config()
    train(config, work_dir=tmp_path / "whole")
    train(config, work_dir=tmp_path / "parts", options={"train_cfg.max_iters": stop_at})
    result = train(config, work_dir=tmp_path / "parts", resume=True)
    assert result["status"] == "done" and result["iterations"] == 8
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    whole, parts = lines(tmp_path / "whole", "val"), lines(tmp_path / "parts", "val")
    assert whole == [line for line in parts if line["iteration"] in (4, 8)]
    assert len({line["iteration"] for line in parts}) == len(parts)


def test_workers_and_a_resume_with_workers_change_no_bit(toy_config: Config, tmp_path: Path) -> None:
    config = toy_config('train_dataloader["sampler"] = dict(type="LabeledUnlabeledSampler", counts=(2,))\n')
    workers = {"train_dataloader.num_workers": 2}
    train(config, work_dir=tmp_path / "none")
    train(config, work_dir=tmp_path / "two", options=workers)
    assert same(weights(tmp_path / "none"), weights(tmp_path / "two"))
    train(config, work_dir=tmp_path / "parts", options={**workers, "train_cfg.max_iters": 3})
    gc.collect()  # the first run's workers hold its lock, and end with the loader
    train(config, work_dir=tmp_path / "parts", resume=True, options=workers)
    assert same(weights(tmp_path / "none"), weights(tmp_path / "parts"))


def test_validation_does_not_disturb_training(toy_config: Config, tmp_path: Path) -> None:
    config = toy_config()
    train(config, work_dir=tmp_path / "often", options={"train_cfg.val_interval": 1})
    options = {"train_cfg.val_interval": 8, "train_cfg.dry_run": False}
    train(config, work_dir=tmp_path / "once", options=options)
    assert same(weights(tmp_path / "often"), weights(tmp_path / "once"))


def test_bad_steps_are_skipped_and_said(toy_config: Config, tmp_path: Path, capfd: Any) -> None:
    config = toy_config("model.update(bad_steps=(2, 3))\n")
    result = train(config, work_dir=tmp_path / "run")
    assert result["status"] == "done"
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())
    printed = capfd.readouterr().out
    assert "step skipped: iteration 2, learning rate 0.1" in printed
    assert "sup_loss_fit is nan" in printed and "first bad gradient: student.weight" in printed
    assert "first bad parameter: none" in printed
    assert lines(tmp_path / "run", "train")[1]["loss"] is None  # steps 3 and 4: JSON has no nan


def test_divergence_ends_the_run(toy_config: Config, tmp_path: Path) -> None:
    config = toy_config("model.update(bad_steps=(1, 2, 3, 4))\n")
    options = {"default_hooks.finite_guard.max_bad_steps": 3}
    with pytest.raises(DivergedError, match=r"3 steps in a row.*iteration 3.*sup_loss_fit is nan"):
        train(config, work_dir=tmp_path / "run", options=options)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed" and "DivergedError" in result["error"]


def test_a_config_with_an_infinite_number_is_run_again_as_it_is(toy_config: Config, tmp_path: Path) -> None:
    config = toy_config('optim_wrapper.update(clip_grad=dict(max_norm=35, norm_type=float("inf")))\n')
    train(config, work_dir=tmp_path / "run", options={"train_cfg.max_iters": 2})
    again = load_config(tmp_path / "run" / "config.py")
    assert again.optim_wrapper.clip_grad == dict(max_norm=35, norm_type=math.inf)


def test_a_run_that_fails_says_how_far_it_came(
    toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssod.registry import MODELS

    def set_step(self: Any, step: int) -> None:
        if step == 3:
            raise ValueError("broken")

    monkeypatch.setattr(MODELS.get("ToyModel"), "set_step", set_step)
    with pytest.raises(ValueError, match="broken"):
        train(toy_config(), work_dir=tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["iterations"]) == ("failed", 3)
    assert result["images_seen"]["labeled"] == 3 * 2


def test_a_signal_stops_after_the_step_and_resume_finishes(
    toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config()
    train(config, work_dir=tmp_path / "whole")
    from ssod.registry import MODELS

    toy = MODELS.get("ToyModel")
    told = toy.set_step

    def set_step(self: Any, step: int) -> None:
        told(self, step)
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(toy, "set_step", set_step)
        result = train(config, work_dir=tmp_path / "run")
    assert (result["status"], result["iterations"]) == ("stopped", 5)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert train(config, work_dir=tmp_path / "run", resume=True)["status"] == "done"
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "run"))
    # Stopped after 5 steps, and logged after 4 and 6: the fifth counts, too.
    assert logged(tmp_path / "whole") == logged(tmp_path / "run")


def test_a_signal_in_a_validation_leaves_it_and_resume_makes_up_for_it(
    toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config()
    from ssod.registry import MODELS

    toy = MODELS.get("ToyModel")
    predict = toy.predict

    def interrupted(self: Any, *values: Any, **options: Any) -> Any:
        if self.step == 7 and signal.getsignal(signal.SIGINT) != signal.default_int_handler:
            os.kill(os.getpid(), signal.SIGINT)
        return predict(self, *values, **options)

    with monkeypatch.context() as patch:
        patch.setattr(toy, "predict", interrupted)
        result = train(config, work_dir=tmp_path / "run")
    assert (result["status"], result["iterations"]) == ("stopped", 8)
    assert [line["iteration"] for line in lines(tmp_path / "run", "val")] == [4]
    train(config, work_dir=tmp_path / "run", resume=True)
    assert [line["iteration"] for line in lines(tmp_path / "run", "val")] == [4, 8]


def test_a_finished_run_is_not_written_over(toy_config: Config, tmp_path: Path) -> None:
    config, out = toy_config(), tmp_path / "run"
    train(config, work_dir=out)
    before = files(out)
    with pytest.raises(UserError, match="holds a finished run"):
        train(config, work_dir=out)
    assert train(config, work_dir=out, resume=True)["status"] == "done"
    assert files(out) == before


def test_an_unfinished_run_asks_for_resume(toy_config: Config, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(DivergedError):
        train(toy_config("model.update(bad_steps=(3, 4, 5, 6, 7))\n"), work_dir=out)
    with pytest.raises(UserError, match="--resume"):
        train(toy_config(), work_dir=out)
    assert train(toy_config(), work_dir=out, resume=True)["iterations"] == 8


def test_a_run_that_failed_early_may_be_repeated(toy_config: Config, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(DivergedError):
        train(toy_config("model.update(bad_steps=(0, 1, 2, 3, 4, 5))\n"), work_dir=out,
              options={"default_hooks.finite_guard.max_bad_steps": 2})  # fmt: skip
    assert not (out / "checkpoints").exists()
    assert train(toy_config(), work_dir=out)["status"] == "done"


def test_a_folder_of_somebody_else_is_left_alone(toy_config: Config, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "config.py").write_text("mine")
    with pytest.raises(UserError, match=r"config.py that no run of ours wrote"):
        train(toy_config(), work_dir=out)
    assert files(out) == {"config.py": b"mine"}


def test_resume_of_another_model_counts_the_differences(toy_config: Config, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(toy_config(), work_dir=out, options={"train_cfg.max_iters": 3})
    path = out / "checkpoints" / "last.pth"
    content = torch.load(path, weights_only=False)
    content["state_dict"]["stranger"] = content["state_dict"].pop("student.weight")
    content["state_dict"]["teacher.bias"] = torch.zeros(5)
    torch.save(content, path)
    expected = r"1 missing \(first: student.weight\), 1 unexpected \(first: stranger\), 1 of another"
    before = (out / "result.json").read_bytes()
    with pytest.raises(UserError, match=expected):
        train(toy_config(), work_dir=out, resume=True)
    assert (out / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("model.update(colour=1)\n", "ToyModel has no option 'colour'"),
        ("model.update(type='ToyModal')\n", "no model of type 'ToyModal'; did you mean ToyModel"),
        ("train_cfg.update(max_iter=3)\n", "'max_iter'; did you mean max_iters"),
        ("default_hooks.update(checkpoint=dict(type='Checkpoints', every=1))\n", "option 'every'"),
        ("val_cfg = dict(which=('twin',))\n", "no network 'twin'"),
        ("optim_wrapper.update(precision='int8')\n", "precision 'int8'"),
        (
            "optim_wrapper.update(optimizer=dict(type='SDG', lr=0.1))\n",
            "there is no optimizer of type 'SDG'; did you mean SGD?",
        ),
        ("optim_wrapper.update(clip_grad=dict(norm=3))\n", "max_norm and norm_type"),
        ("load_from = 'nowhere.pth'\n", "nowhere.pth does not exist"),
    ],
)
def test_wrong_options_are_one_line(toy_config: Config, tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train(toy_config(more), work_dir=tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_seed_that_is_none_is_one_line(toy_config: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--seed.* is -1: give a whole number from 0"):
        train(toy_config(), work_dir=tmp_path / "run", seed=-1)


def test_a_back_end_that_is_not_installed_is_one_line(
    toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    more = "visualizer = dict(type='Visualizer', vis_backends=[dict(type='WandbVisBackend')])\n"
    with pytest.raises(UserError, match=r"needs wandb, which is not here: pip install wandb$"):
        train(toy_config(more), work_dir=tmp_path / "run")


def test_amp_trains_in_bfloat16(toy_config: Config, tmp_path: Path) -> None:
    assert train(toy_config(), work_dir=tmp_path / "half", amp=True)["status"] == "done"
    train(toy_config(), work_dir=tmp_path / "full")
    assert not same(weights(tmp_path / "half"), weights(tmp_path / "full"))
    text = (tmp_path / "half" / "config.py").read_text()
    assert "precision='bfloat16'" in text


def test_training_keeps_torchs_threads(toy_config: Config, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train(toy_config(), work_dir=tmp_path / "run")
    assert torch.get_num_threads() == before


def test_mmengine_opens_our_checkpoints(toy_config: Config, tmp_path: Path) -> None:
    from mmengine.runner import load_checkpoint

    from ssod.registry import MODELS

    train(toy_config(), work_dir=tmp_path / "run")
    model = MODELS.build({"type": "ToyModel"})
    path = tmp_path / "run" / "checkpoints" / "best_teacher.pth"
    content = load_checkpoint(model, str(path), strict=True)
    assert content["meta"]["iter"] in (4, 8)
    assert same(dict(model.state_dict()), weights(tmp_path / "run", "best_teacher"))
