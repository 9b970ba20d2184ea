"""docs/deploy.md: commands run as they stand, files and options are there, defaults are the tools' own."""

from __future__ import annotations

import copy
import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SNIPPET = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the page has it: a checkpoint of an untrained network, and photos."""
    from ssod.engine.config import read_config
    from ssod.registry import MODELS

    for name in ("configs", "tools", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "work_dirs/soft_teacher/shapes/checkpoints"
    place.mkdir(parents=True)
    model = MODELS.build(copy.deepcopy(read_config("configs/soft_teacher/shapes.py").model))
    torch.save({"state_dict": model.state_dict(), "meta": {}}, place / "best_teacher.pth")
    (tmp_path / "photos").mkdir()
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"photos/{number}.png"), image)
    return tmp_path


def test_every_command_runs(folder: Path) -> None:
    """And leaves what the snippet for mmdet reads; tests/integration runs mmdet alone."""
    assert len(COMMANDS) == 3 and len(SNIPPET) == 1
    for command in COMMANDS:
        python, path, *words = shlex.split(command)
        assert python == "python"
        assert runpy.run_path(path)["main"](words) == 0
    assert (folder / "found/predictions.json").exists()
    assert sorted(path.name for path in (folder / "found/pictures").iterdir()) == ["0.png", "1.png"]
    assert {"images", "annotations", "provenance"} <= json.loads((folder / "boxes.json").read_text()).keys()
    named = re.findall(r'"([\w/.]+\.\w+)"', SNIPPET[0])
    assert named == ["plain/config.py", "plain/weights.pth", "photos/0.png"]
    assert all((folder / name).exists() for name in named)
    compile(SNIPPET[0], "docs/deploy.md", "exec")


def test_options_and_defaults_are_the_tools() -> None:
    given: dict[str, Any] = {}
    for tool in ("predict", "export", "show_views"):
        main = runpy.run_path(str(ROOT / f"tools/{tool}.py"))
        words = (
            ["c", "--out", "o"]
            if tool == "show_views"
            else ["c", "k", *["i"] * (tool == "predict"), "--out", "o"]
        )
        given |= vars(main["parse"](words))
    options = {each.replace("-", "_") for each in re.findall(r"--([a-z][\w-]*)", PAGE)}
    assert options and options <= given.keys()
    assert f"--min-score {given['min_score']}`" in PAGE
    labeling = runpy.run_path(str(ROOT / "tools/pseudo_label.py"))["parse"](["c", "k", "i", "--out", "o"])
    assert f"below a score of {labeling.min_score} are dropped" in PAGE


def test_the_page_names_what_is_there() -> None:
    names = re.findall(r"\b(?:configs|tools|docs|ssod|tests)/[\w/.]+\.(?:py|md)\b", PAGE)
    links = re.findall(r"\]\(([\w.]+)\)", PAGE)
    theirs = {"tools/test.py", "tools/deploy.py"}  # mmdet's and mmdeploy's
    assert [name for name in names if name not in theirs and not (ROOT / name).exists()] == []
    assert links and all((ROOT / "docs" / link).exists() for link in links)
