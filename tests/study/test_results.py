"""Which folders are runs, what is read of them, and what is refused as broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reference.report_runs import result, write_run

from ssod.engine.offline import stages
from ssod.engine.records import result as engine_result
from ssod.errors import UserError
from ssod.study import results
from ssod.study.results import find_runs

AP = {"teacher": [40.0, 60.0, 42.0], "student": [39.0, 59.0, 41.0]}


def run_in(folder: Path, seed: int = 0, method: str = "SoftTeacher", **more: Any) -> Path:
    return write_run(folder, result(method, seed, AP, **more))


def names(*folders: Path) -> list[str]:
    return [run.name for run in find_runs(folders)]


def test_file_names_are_the_engines() -> None:
    assert (results.RESULT, results.METRICS) == (engine_result.RESULT, engine_result.METRICS)
    assert results.STAGE == stages.STAGE


def test_runs_are_found_at_any_depth_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("b/run_10", "b/run_2", "a"):
        run_in(tmp_path / name)
    assert names(tmp_path) == ["a", "b/run_2", "b/run_10"]


def test_digits_that_are_no_numbers_are_letters(tmp_path: Path) -> None:
    for name in ("run²", "run10", "run2"):
        run_in(tmp_path / name)
    assert names(tmp_path) == ["run²", "run2", "run10"]


def test_a_name_too_long_for_a_folder_is_none() -> None:
    with pytest.raises(UserError, match=r"^a{300} is no folder"):
        find_runs(["a" * 300])


def test_a_run_given_twice_counts_once(tmp_path: Path) -> None:
    run_in(tmp_path / "a/one")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert names(tmp_path, tmp_path / "a", tmp_path / "link", tmp_path / "a/one") == ["one"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    run_in(tmp_path / "disk/one")
    (tmp_path / "work_dirs").mkdir()
    (tmp_path / "work_dirs/link").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/one/up").symlink_to(tmp_path / "work_dirs")
    assert names(tmp_path / "work_dirs") == ["one"]


def test_stages_are_no_runs_and_lend_their_metrics(tmp_path: Path) -> None:
    """STAC: its result.json counts; curves are those of the last stage that trained."""
    stage_list = [{"name": f"stage_{n}"} for n in ("1_teacher", "2_labels", "3_student")]
    whole = run_in(tmp_path / "stac", method="STAC", stages=stage_list)
    for number, name in enumerate(("stage_1_teacher", "stage_3_student")):
        line = {"kind": "val", "iteration": 10 * number}
        stage = write_run(whole / name, result("STAC", 0, AP), records=[line])
        (stage / "stage.json").write_text("{}")
    assert names(tmp_path) == ["stac"]
    (run,) = find_runs([tmp_path])
    assert run.training_folder == whole / "stage_3_student" and run.records[0]["iteration"] == 10
    with pytest.raises(UserError, match=r"no result\.json of a run in"):  # given by itself, it is still none
        find_runs([whole / "stage_1_teacher"])


def test_a_run_below_another_is_a_run(tmp_path: Path) -> None:
    run_in(tmp_path / "outer")
    run_in(tmp_path / "outer/inner", seed=1)
    assert names(tmp_path) == ["outer", "outer/inner"]


def test_values_are_per_cent_and_absent_where_coco_has_no_box(tmp_path: Path) -> None:
    run_in(tmp_path / "a")
    (run,) = find_runs([tmp_path])
    assert run.value("teacher", "AP75") == pytest.approx(42.0)
    assert run.value("teacher", "APl") is None  # -1 in result.json
    assert run.value("nobody", "AP") is None
    assert run.networks == ("teacher", "student")


def test_batches_count_all_processes(tmp_path: Path) -> None:
    run_in(tmp_path / "a", world_size=4)
    assert find_runs([tmp_path])[0].batch == (32, 32)


def test_half_a_line_of_metrics_is_left_out(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "a")
    (folder / "metrics.jsonl").write_text('{"kind": "val", "iteration": 3}\n[1]\n{"kind": "val", "iter')
    assert find_runs([tmp_path])[0].records == [{"kind": "val", "iteration": 3}]


BROKEN: list[tuple[str, str, str]] = [
    ("result.json", '{"schema": 1, "status', "Unterminated string"),
    ("result.json", "[]", "no object"),
    ("result.json", '{"schema": 2}', "has schema 2, this version reads 1"),
    ("result.json", json.dumps({**result("FixMatch", 0, AP), "metrics": None}), "metrics is None"),
    ("result.json", json.dumps({"schema": 1, "status": "done"}), "no method"),
    (
        "result.json",
        json.dumps(result("FixMatch", 0, AP, metrics__teacher={"bbox_mAP": "x"})),
        "metrics is {'teacher'",
    ),
    ("result.json", json.dumps(result("FixMatch", 0, AP, metrics__teacher=3)), "metrics is {'teacher': 3"),
    ("result.json", json.dumps(result("FixMatch", 0, AP, split__percent="10")), "split.percent is '10'"),
    ("run.json", "{", "Expecting property name"),
    ("run.json", '{"axes": [1]}', "axes is [1]"),
]


@pytest.mark.parametrize(("file", "content", "reason"), BROKEN, ids=[f"{r[0]} {r[2]}" for r in BROKEN])
def test_a_broken_file_is_named(tmp_path: Path, file: str, content: str, reason: str) -> None:
    run_in(tmp_path / "good")
    bad = run_in(tmp_path / "bad", seed=1)
    (bad / file).write_text(content)
    with pytest.raises(UserError) as caught:
        find_runs([tmp_path])
    assert str(bad / file) in str(caught.value) and reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_no_data_is_named(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "a")
    (folder / "config.py").write_text("model = open('x')\n")
    with pytest.raises(UserError, match=r"config .*a/config\.py can't be read as data \(line 1 holds more"):
        _ = find_runs([tmp_path])[0].options


@pytest.mark.parametrize(("make", "says"), [(True, "no result.json of a run in"), (False, "is no folder")])
def test_no_run_at_all(tmp_path: Path, make: bool, says: str) -> None:
    folder = tmp_path / "empty"
    if make:
        folder.mkdir()
    with pytest.raises(UserError, match=says):
        find_runs([folder])
