"""config.py as data: the same as mmengine's Config.fromfile gives, and nothing is executed."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.config import Config

from ssod.errors import UserError
from ssod.study.report.literal import flatten, read_config, show, telling
from ssod.study.sweep.prepare import _as_text

PROJECT = Path(__file__).resolve().parents[3]
MANUAL: dict[str, Any] = {
    "model": {"type": "A", "weights": [-0.5, 1e-05, float("inf")], "none": None, "flags": (True, False)},
    "names": {"two words": 1, "class": {"deep": [{"x": ()}, {}]}, "3": 'it\'s "quoted" \\ and\nbroken'},
    "pairs": [dict(type="B", scale=(1333, 800)), [dict(type="C")]],
    "empty": {},
}


def same_as_mmengine(path: Path) -> dict[str, Any]:
    read = read_config(path)
    assert read == Config.fromfile(str(path)).to_dict()
    return read


@pytest.mark.parametrize("name", ["soft_teacher/shapes", "stac/bccd_10", "supervised/coco_10_fcos"])
def test_real_dumps_read_as_mmengine_reads_them(tmp_path: Path, name: str) -> None:
    config = Config.fromfile(str(PROJECT / "configs" / f"{name}.py"))
    config.dump(str(tmp_path / "config.py"))
    read = same_as_mmengine(tmp_path / "config.py")
    assert read["model"]["type"] == "SemiDetector"


def test_all_that_a_dump_may_hold(tmp_path: Path) -> None:
    Config(MANUAL).dump(str(tmp_path / "config.py"))
    text = (tmp_path / "config.py").read_text()
    assert "inf" in text and "{" in text  # mmengine writes these in their own way
    assert read_config(tmp_path / "config.py") == MANUAL


def test_a_sweeps_configs_read_as_mmengine_reads_them(tmp_path: Path) -> None:
    """Numbers that are no literals, at any depth; the file itself can be run."""
    run: Any = SimpleNamespace(name="toy", config=Config({**MANUAL, "low": [{"a": (-float("inf"), 1e-05)}]}))
    text = _as_text(run).partition("\n")[2]  # without the line that says what it is
    (tmp_path / "config.py").write_text(text + 'nothing = float("nan")\n')
    read = read_config(tmp_path / "config.py")
    assert math.isnan(read.pop("nothing"))
    assert read == run.config.to_dict()
    made = Config.fromfile(str(tmp_path / "config.py")).to_dict()
    assert math.isnan(made.pop("nothing"))
    assert made == read


CODE = [
    "import os",
    "x = __import__('os')",
    "x = dict(open('/dev/null'))",
    "x = [y for y in ()]",
    "x = 1 + 1",
    "x = -'a'",
    "x = float('1e3')",
    "x = dict([1])",
    "x = other",
    "x[0] = 1",
    "x = dict(a=",
    "x = " + "(" * 2000,
]


@pytest.mark.parametrize("code", CODE, ids=[each[:24] for each in CODE])
def test_code_is_refused_and_not_run(tmp_path: Path, code: str) -> None:
    (tmp_path / "config.py").write_text(code)
    with pytest.raises(UserError, match="can't be read as data"):
        read_config(tmp_path / "config.py")


def test_options_have_their_path_as_name() -> None:
    config = {"model": {"a": 1, "b": {}}, "steps": [{"type": "X"}, [{"k": (1, 2)}]], "_labeled": {"c": 3}}
    assert flatten(config) == {
        "model.a": 1,
        "model.b": {},
        "steps.0.type": "X",
        "steps.1.0.k": (1, 2),
    }


def test_seed_fold_and_machine_do_not_tell_runs_apart() -> None:
    def config(root: str, fold: int, seed: int, workers: int) -> dict[str, Any]:
        data = {"ann_file": f"semi/train.{fold}@10.json", "data_root": root, "only_ids": [fold]}
        return {
            "model": {"method": {"type": "STAC"}},
            "train_dataloader": {"dataset": data, "num_workers": workers},
            "val_evaluator": {"ann_file": f"{root}/val.json"},
            "randomness": {"seed": seed},
            "train_cfg": {"max_iters": 9, "val_interval": seed + 1},
            "work_dir": root,
        }

    one, two = (telling(flatten(config(*each))) for each in (("/a", 1, 0, 4), ("/b/c", 2, 1, 0)))
    assert one == two
    assert one == {
        "model.method.type": "STAC",
        "train_dataloader.dataset.ann_file": "train.*@10.json",
        "val_evaluator.ann_file": "val.json",
        "train_cfg.max_iters": "9",
    }


def test_values_are_shown_as_they_are_written() -> None:
    assert [show(each) for each in ("a b", 0.1, None, True, (1, "x", [2]))] == [
        "a b",
        "0.1",
        "None",
        "True",
        "[1, x, [2]]",
    ]
