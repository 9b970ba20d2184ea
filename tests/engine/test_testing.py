"""tools/test.py's core: loaders that the options leave inconsistent are mended as they are for training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from reference.modules import load_tool

from ssod.engine.testing import evaluate_checkpoint
from ssod.errors import UserError
from ssod.registry import MODELS


def test_without_workers_none_persist(toy_config: Callable[[str], Path], tmp_path: Path) -> None:
    """torch refuses persistent workers where there are none; training takes the option back, too."""
    config = toy_config("val_dataloader.update(num_workers=1, persistent_workers=True)\n")
    model = MODELS.build({"type": "ToyModel"})
    torch.save({"state_dict": model.state_dict(), "meta": {"iter": 3}}, tmp_path / "toy.pth")
    found = evaluate_checkpoint(config, tmp_path / "toy.pth", options={"val_dataloader.num_workers": 0})
    assert found["iteration"] == 3 and found["num_images"] == 3
    assert 0 < found["metrics"]["teacher"]["bbox_mAP"] < 1


def test_mistakes_of_the_command_line_are_mended_in_a_line(
    toy_config: Callable[[str], Path], tmp_path: Path
) -> None:
    config, checkpoint = toy_config(""), tmp_path / "toy.pth"
    checkpoint.write_bytes(b"")
    with pytest.raises(UserError, match=r"no test_dataloader, .* needs: use --split val$"):
        evaluate_checkpoint(config, checkpoint, split="test")
    with pytest.raises(UserError, match=r"toy\.pth is a checkpoint: the config comes first"):
        evaluate_checkpoint(checkpoint, config)


def test_what_out_can_not_be_costs_no_evaluation_and_no_table(
    toy_config: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder is refused before the work; a file that can't be written comes after the table."""
    config, checkpoint = toy_config(""), tmp_path / "toy.pth"
    tool, words = load_tool("test"), [str(config), str(checkpoint), "--out"]
    assert tool.main([*words, str(tmp_path)]) == 2  # the checkpoint is not even looked for
    assert "is a folder: name a file in it" in capsys.readouterr().err
    torch.save({"state_dict": MODELS.build({"type": "ToyModel"}).state_dict(), "meta": {}}, checkpoint)
    (tmp_path / ".ap.json.partial").mkdir()  # in the way of what is written
    assert tool.main([*words, str(tmp_path / "ap.json")]) == 1
    said = capsys.readouterr()
    assert "teacher" in said.out and "AP" in said.out
    assert said.err.startswith("error: --out") and said.err.count("\n") == 1
