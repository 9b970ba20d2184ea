"""The threshold advisor: its rule against trying every bound, its files, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from reference import small_run
from reference.modules import load_tool
from rich.console import Console

from ssod.engine.commands.advise import GRID, advise, show, suggest, suggestions
from ssod.engine.telemetry.matching import Matches
from ssod.engine.telemetry.plots import draw_thresholds
from ssod.errors import UserError

PROJECT = Path(__file__).resolve().parents[3]


def matches(scores: Any, hit: Any, truth: int, counted: Any = None) -> Matches:
    scores, hit = np.asarray(scores, dtype=float), np.asarray(hit, dtype=bool)
    kept = np.ones(len(scores), bool) if counted is None else np.asarray(counted, dtype=bool)
    return Matches(scores, np.zeros(len(scores), np.int64), hit, kept, hit * 0.8, np.array([truth]), 9)


@pytest.mark.parametrize("seed", range(12))
def test_no_lower_bound_is_precise_enough(seed: int) -> None:
    """By trying each bound there is: the suggestion keeps the precision, and nothing below it does."""
    random = np.random.default_rng(seed)
    scores = random.uniform(0.05, 1, 80).round(2)  # with ties
    found = matches(scores, random.random(80) < scores, truth=60, counted=random.random(80) < 0.9)
    found = Matches(**{**vars(found), "hit": found.hit & found.counted})
    one = suggest(found, 0.8)

    def precision(bound: float) -> float:
        above = (found.scores > bound) & found.counted
        return float(found.hit[above].mean()) if above.any() else float("nan")

    bounds = [0.0, *sorted(set(scores.tolist()))]
    enough = [bound for bound in bounds if precision(bound) >= 0.8]
    if not enough:
        assert one["min_score"] is None and one["best_precision"] < 0.8
        return
    lowest = min(enough)
    assert one["precision"] >= 0.8 and one["precision"] == pytest.approx(precision(lowest))
    assert precision(one["min_score"]) == pytest.approx(one["precision"])
    assert one["recall"] == pytest.approx((found.hit & (found.scores > lowest)).sum() / 60)
    assert lowest <= one["min_score"] < min(s for s in scores if s > lowest)
    if lowest == 0:
        assert one["min_score"] >= min(scores) - 0.001, "not below what was seen"
    for bound, at, recall in one["curve"]:
        assert at == pytest.approx(precision(bound), nan_ok=True)
        assert recall == pytest.approx((found.hit & (found.scores > bound)).sum() / 60)
    assert [row[0] for row in one["curve"]] == GRID


@pytest.mark.parametrize("score", [0.98, 1.0, 0.0503, 0.05])
def test_no_bound_lies_far_below_what_was_seen(score: float) -> None:
    """One detection says nothing of half its score."""
    bound = suggest(matches([score], [True], truth=1), 0.9)["min_score"]
    assert score - 0.0011 < bound < score


@pytest.mark.parametrize("name", ["a[/b]", "a[red]", "$x_{$", "a\\"])
def test_any_class_name_is_shown_as_it_is(name: str, tmp_path: Path, capsys: Any) -> None:
    """rich takes brackets for markup, matplotlib dollars for formulas."""
    found = suggestions(matches([0.9, 0.5], [True, False], truth=3), (name,), 0.9)
    advice = {"which": "teacher", "num_images": 1, "rule": "", "min_precision": 0.9, **found}
    show(advice, Console(highlight=False, soft_wrap=True, width=200))
    assert name in capsys.readouterr().out
    draw_thresholds(advice, tmp_path / "thresholds.png")
    assert (tmp_path / "thresholds.png").exists()


def test_a_class_that_is_never_right_gets_no_bound() -> None:
    one = suggest(matches([0.9, 0.5], [False, True], truth=4), 0.9)
    assert one["min_score"] is None and one["recall"] is None and one["best_precision"] == 0.5
    nothing = suggest(matches([], [], truth=4), 0.9)
    assert nothing["min_score"] is None and nothing["best_precision"] is None and nothing["found"] == 0


@pytest.fixture(scope="module")
def world(registered: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A config and a checkpoint; the truth is what the teacher itself finds above 0.3."""
    folder = tmp_path_factory.mktemp("advise")
    images = small_run.write_images(folder / "images")
    small_run.write_coco(folder / "val.json", [f"{number}.png" for number in range(7)], boxes=True)
    config = small_run.write_config(folder / "small.py")
    content = Config.fromfile(config)
    content.val_dataloader.dataset.update(
        ann_file=str(folder / "val.json"), data_prefix=dict(img=str(images))
    )
    content.val_dataloader.sampler = dict(type="DefaultSampler", shuffle=False)
    content.dump(config)
    checkpoint = small_run.write_checkpoint(folder / "small.pth", small_run.build())
    return config, checkpoint


def test_the_tool_prints_writes_and_draws(world: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    config, checkpoint = world
    code = load_tool("advise").main(
        [str(config), str(checkpoint), "--out", str(tmp_path), "--min-precision", "0.01"]
    )
    printed, complained = capsys.readouterr()
    assert (code, complained) == (0, "")
    advice = json.loads((tmp_path / "thresholds.json").read_text())
    assert advice["which"] == "teacher" and advice["num_images"] == 7 and advice["min_precision"] == 0.01
    assert list(advice["classes"]) == list(small_run.CLASSES)
    assert advice["all"]["truth"] == 7 == advice["classes"]["b"]["truth"]
    assert advice["all"]["found"] == sum(each["found"] for each in advice["classes"].values()) > 0
    assert (tmp_path / "thresholds.png").read_bytes().startswith(b"\x89PNG")
    assert "teacher, 7 labeled images" in printed and "min_precision = 0.01" in " ".join(printed.split())
    student = advise(config, checkpoint, tmp_path / "student", which="student")
    assert student["which"] == "student"
    counts = [[each["found"] for each in one["classes"].values()] for one in (student, advice)]
    assert counts[0] != counts[1], "two networks"


def test_bad_input_is_one_line(world: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    config, checkpoint = world
    assert load_tool("advise").main([str(config), str(checkpoint), "--min-precision", "1.5"]) == 2
    assert "error: --min-precision 1.5" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"none\.pth"):
        advise(config, tmp_path / "none.pth", tmp_path)


def test_an_output_that_cant_be_made_is_said_before_anything_is_measured(
    world: tuple[Path, Path], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssod.engine.commands.advise.match_all", None)
    (tmp_path / "f").write_text("mine")
    assert load_tool("advise").main([*map(str, world), "--out", str(tmp_path / "f")]) == 2
    complained = capsys.readouterr().err
    assert "can't be a folder" in complained and complained.count("\n") == 1


def test_no_worker_may_be_asked_for(world: tuple[Path, Path], tmp_path: Path) -> None:
    """Of a config whose workers stay, as all of the project's do."""
    config = Config.fromfile(world[0])
    config.val_dataloader.update(num_workers=1, persistent_workers=True)
    config.dump(tmp_path / "stay.py")
    options = {"val_dataloader.num_workers": 0}
    assert advise(tmp_path / "stay.py", world[1], tmp_path, options=options)["num_images"] == 7
