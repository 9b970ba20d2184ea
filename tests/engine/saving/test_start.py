"""Where a run lies that is resumed, and that one says where nothing is there to resume."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssod.engine.saving.start import work_dir_of
from ssod.engine.train import train
from ssod.errors import UserError


def test_a_runs_own_config_is_resumed_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own, again = Path("work_dirs/run"), Path("work_dirs/run_again")
    config = own / "config.py"
    assert work_dir_of(config, False) == again
    assert work_dir_of(config, True) == again  # nobody's run lies beside it
    assert work_dir_of("configs/fixmatch/shapes.py", True) == Path("work_dirs/fixmatch/shapes")

    def now(folder: Path, status: str, of: Path = config) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text(json.dumps({"status": status, "config": str(of)}))

    now(own, "stopped")
    assert work_dir_of(config, False) == again
    assert work_dir_of(config, True) == work_dir_of(config, "some.pth") == own
    now(own, "done")
    assert work_dir_of(config, True) == own
    now(again, "stopped")
    assert work_dir_of(config, True) == again
    now(own, "stopped")
    with pytest.raises(UserError, match=r"both hold an unfinished run: name one with --work-dir"):
        work_dir_of(config, True)
    now(again, "done")
    assert work_dir_of(config, True) == own
    now(again, "stopped", of=Path("work_dirs/other/run/config.py"))  # which trains again under that name, too
    assert work_dir_of(config, True) == own


def test_nothing_to_resume_is_said(toy_config: Callable[[str], Path], tmp_path: Path, capfd: Any) -> None:
    config, out = toy_config(""), tmp_path / "run"
    train(config, work_dir=out, resume=True, options={"train_cfg.max_iters": 2})
    assert f"nothing to resume in {out}: begins at 0\n" in capfd.readouterr().out
    train(config, work_dir=out, resume=True, options={"train_cfg.max_iters": 3})
    assert "nothing to resume" not in capfd.readouterr().out


@pytest.mark.parametrize("resume", [False, True])
def test_a_training_in_stages_is_not_written_over(
    toy_config: Callable[[str], Path], tmp_path: Path, resume: bool
) -> None:
    """What a stopped STAC run leaves: no checkpoint of its own beside its stages."""
    stage = tmp_path / "run" / "stage_1_teacher"
    stage.mkdir(parents=True)
    (stage / "metrics.jsonl").touch()
    (stage.parent / "result.json").write_text('{"status": "stopped"}')
    with pytest.raises(UserError, match="holds a training in stages: choose another"):
        train(toy_config(""), work_dir=stage.parent, resume=resume)
    assert (stage.parent / "result.json").read_text() == '{"status": "stopped"}'


def test_a_run_killed_between_its_first_validation_and_its_first_checkpoint_begins_anew(
    toy_config: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Its best_*.pth can't be resumed, and keeps nobody from beginning again."""
    config, out = toy_config("train_cfg.update(val_interval=1)\n"), tmp_path / "run"
    from ssod.registry import MODELS

    def killed(self: Any, step: int) -> None:
        while step == 2 and not (out / "checkpoints" / "best_teacher.pth").exists():
            time.sleep(0.01)
        if step == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(MODELS.get("ToyModel"), "set_step", killed)
            train(config, work_dir=out)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert {path.name for path in (out / "checkpoints").glob("*.pth")} <= {
        "best_teacher.pth",
        "best_student.pth",
    }
    assert train(config, work_dir=out, resume=True)["status"] == "done"
    assert f"nothing to resume in {out}: begins at 0\n" in capfd.readouterr().out
    train(config, work_dir=tmp_path / "whole")
    assert same_weights(out, tmp_path / "whole")


def same_weights(*work_dirs: Path) -> bool:
    ours, theirs = (
        torch.load(each / "checkpoints" / "last.pth", weights_only=True)["state_dict"] for each in work_dirs
    )
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_seed_is_the_checkpoint_s(toy_config: Callable[[str], Path], tmp_path: Path) -> None:
    """Order of images, views and records alike; another one that is asked for is refused in one line."""
    config, out = toy_config(""), tmp_path / "run"
    train(config, work_dir=out, seed=7, options={"train_cfg.max_iters": 3})
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for asked in ({"seed": 8}, {"options": {"randomness.seed": 8}}):
        with pytest.raises(UserError, match=r"is of a run with seed 7, .*: leave out --seed 8, or") as caught:
            train(config, work_dir=out, resume=True, **asked)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert train(config, work_dir=out, resume=True)["seed"] == 7
    assert "seed=7" in (out / "config.py").read_text()
    train(config, work_dir=tmp_path / "whole", seed=7)
    assert same_weights(out, tmp_path / "whole")


def test_a_seed_that_was_drawn_is_written_down(toy_config: Callable[[str], Path], tmp_path: Path) -> None:
    config, drawn = toy_config("randomness = dict(seed=None)\n"), []
    for name in ("a", "b"):
        drawn.append(train(config, work_dir=tmp_path / name, options={"train_cfg.max_iters": 3})["seed"])
        assert train(config, work_dir=tmp_path / name, resume=True)["seed"] == drawn[-1]
    assert type(drawn[0]) is int and drawn[0] != drawn[1]
    train(config, work_dir=tmp_path / "whole", seed=drawn[0])
    assert same_weights(tmp_path / "a", tmp_path / "whole")
    assert f"seed={drawn[0]}" in (tmp_path / "a" / "config.py").read_text()
