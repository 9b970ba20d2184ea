"""Whatever stands in the files of a run: a report, or one line that names the file; never anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reference.report_runs import learning, picture, result, write_run

from ssod.errors import UserError
from ssod.study.report.tables import make_report
from ssod.study.report.write import FORMATS, write_report

VALUES: tuple[Any, ...] = (None, "x", [{}], {"x": []}, -3, 0.5, True, 10**400)
STAGES = [{"name": "stage_1_teacher", "iterations": 5, "status": "done", "seconds": 2.0}]


def record(seed: int) -> dict[str, Any]:
    return result("FixMatch", seed, {"teacher": [40, 60, 40], "student": [39, 59, 39]}, stages=STAGES)


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in nested containers."""
    inner = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy in which another value stands at the path."""
    copy = json.loads(json.dumps(content))
    at = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return copy


def report(folder: Path, *formats: str) -> None:
    """Writes the formats, by default every one; a UserError must be one line."""
    try:
        write_report(make_report([folder / "runs"]), folder / "out", formats or FORMATS)
    except UserError as error:
        assert "\n" not in str(error) and "run" in str(error)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run, and its twin with curves and a picture, in a folder `runs`."""
    import random

    twin = {**record(0), "method": "supervised"}
    lines = learning(random.Random(0), {"teacher": 40.0}, 1800, quality=True)
    place = {"sweep": "s", "name": "n", "axes": {"method": "fixmatch", "seed": 0}, "twin": False}
    write_run(tmp_path / "runs/twin", twin, records=lines)
    run = write_run(tmp_path / "runs/run", record(0), records=lines, place=place)
    picture(run / "pseudo_labels/iter_3.jpg", 0, (40, 40))
    return tmp_path


@pytest.mark.parametrize("path", list(places(record(0))), ids=lambda path: ".".join(map(str, path)))
def test_of_result_json(runs: Path, path: tuple[Any, ...]) -> None:
    for value in VALUES:
        (runs / "runs/run/result.json").write_text(json.dumps(changed(record(0), path, value)))
        report(runs)


def test_of_run_json(runs: Path) -> None:
    file = runs / "runs/run/run.json"
    content = json.loads(file.read_text())
    for path in places(content):
        for value in VALUES:
            file.write_text(json.dumps(changed(content, path, value)))
            report(runs)


def test_of_metrics_jsonl(runs: Path) -> None:
    file = runs / "runs/run/metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()[-3:]]
    for path in places(lines):
        for value in VALUES:
            file.write_text("".join(json.dumps(each) + "\n" for each in changed(lines, path, value)))
            report(runs, "html")  # the others don't read it


@pytest.mark.parametrize("file", ["result.json", "run.json", "metrics.jsonl", "config.py"])
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"\x00" * 9, b"[" * 5000, b'{"a": NaN}'])
def test_of_bytes(runs: Path, file: str, content: bytes) -> None:
    (runs / "runs/run" / file).write_bytes(content)
    report(runs)


@pytest.mark.parametrize(
    "text",
    [
        "train_dataloader = 3",
        "train_dataloader = dict(dataset=[1, 2])",
        "train_dataloader = dict(dataset=dict(datasets=[1], ann_file=5, data_root=7))",
        "train_dataloader = dict(dataset=dict(datasets=[], ann_file=None, data_root=''))",
        "val_dataloader = dict(dataset='x')",
        "model = 'x'",
        "model = {1: {2: [3, {4: b'x'}]}}",
        "model = float('nan')",
        "x = '\\ud800'",
        "a = b = 1",
        "(a, b) = 1, 2",
        "",
    ],
)
def test_of_config_py(runs: Path, text: str) -> None:
    (runs / "runs/run/config.py").write_text(text)
    report(runs)
