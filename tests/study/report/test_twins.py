"""Which supervised run is a run's twin, and what is compared with what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reference.report_runs import digest, result, write_run

from ssod.errors import UserError
from ssod.study.report.tables import Report, make_report


def write(folder: Path, method: str, ap: float | dict[str, list[float]], seed: int = 0, **more: Any) -> Path:
    networks = ap if isinstance(ap, dict) else {"teacher": [ap, 2 * ap, ap], "student": [ap - 1, 2 * ap, ap]}
    options = {key: more.pop(key) for key in ("place", "method", "config") if key in more}
    config = options.pop("config", {})
    return write_run(folder, result(method, seed, networks, **more), **options, **config)


def gains(report: Report, network: str = "teacher", metric: str = "AP") -> dict[str, Any]:
    return {
        line.row.label: line.gains[network, metric].differences
        for table in report.tables
        for line in table.lines
        if (network, metric) in line.gains
    }


def test_pairs_share_images_seed_and_iterations(tmp_path: Path) -> None:
    write(tmp_path / "twin0", "supervised", 40, seed=0)
    write(tmp_path / "twin1", "supervised", 42, seed=1)
    write(tmp_path / "long", "supervised", 50, seed=0, iterations=3600)
    write(tmp_path / "other", "supervised", 30, seed=0, split__ids_sha256=digest("other"))
    write(tmp_path / "fix0", "FixMatch", 43, seed=0)
    write(tmp_path / "fix1", "FixMatch", 46, seed=1)
    report = make_report([tmp_path])
    assert gains(report) == {"FixMatch": (pytest.approx(3), pytest.approx(4))}
    assert gains(report, metric="AP50") == {"FixMatch": (pytest.approx(6), pytest.approx(8))}


@pytest.mark.parametrize(
    "change",
    [{"iterations": 3600}, {"seed": 1}, {"split__ids_sha256": digest("other")}, {"split__num_labeled": 60}],
)
def test_what_differs_in_one_of_these_is_no_twin(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path / "near", "supervised", 40, **change)
    write(tmp_path / "fix", "FixMatch", 43)
    assert gains(make_report([tmp_path])) == {}


def test_runs_without_a_twin_are_told(tmp_path: Path) -> None:
    write(tmp_path / "twin0", "supervised", 40, seed=0)
    for seed in (0, 1):
        write(tmp_path / f"fix{seed}", "FixMatch", 43, seed=seed)
    write(tmp_path / "alone", "STAC", 43, seed=7)
    (table,) = make_report([tmp_path]).tables
    assert table.notes == [
        "FixMatch: 1 of 2 runs have no supervised twin.",
        "STAC: no supervised twin, so no Δ.",
    ]


def test_a_twin_without_a_teacher_is_compared_by_its_student(tmp_path: Path) -> None:
    """COCO's published baseline has no averaged copy."""
    write(tmp_path / "twin", "supervised", {"student": [40, 60, 40]})
    write(tmp_path / "soft", "SoftTeacher", 43)
    report = make_report([tmp_path])
    assert gains(report) == {"Soft Teacher": (pytest.approx(3),)}
    assert gains(report, "student") == {"Soft Teacher": (pytest.approx(2),)}
    assert "the twins have one network, with which both are compared." in report.tables[0].notes[0]


@pytest.mark.parametrize(
    ("twin", "notes"),
    [
        (2, ["the twins have 2 labeled images in a batch and these runs 16, so Δ shows that, too."]),
        (16, []),
    ],
)
def test_twins_with_another_labeled_batch_are_told(tmp_path: Path, twin: int, notes: list[str]) -> None:
    """Of all processes together: two with 8 each are 16."""
    write(tmp_path / "twin", "supervised", 40, batch={"labeled": twin, "unlabeled": 0})
    write(tmp_path / "fix", "FixMatch", 43, batch={"labeled": 8, "unlabeled": 8}, world_size=2)
    report = make_report([tmp_path])
    assert report.tables[0].notes == [f"FixMatch: {each}" for each in notes]
    assert gains(report) == {"FixMatch": (pytest.approx(3),)}


def test_a_student_alone_is_compared_with_the_twins_student(tmp_path: Path) -> None:
    write(tmp_path / "twin", "supervised", 40)
    write(tmp_path / "stac", "STAC", {"student": [44, 60, 44]})
    report = make_report([tmp_path])
    assert gains(report) == {} and gains(report, "student") == {"STAC": (pytest.approx(5),)}
    assert report.tables[0].lines[1].headline == "student"


def test_of_several_twins_the_one_with_the_same_detector_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "twin", "supervised", 40)
    near = write(tmp_path / "near", "supervised", 30)
    far = write(tmp_path / "far", "supervised", 20)
    for folder, old, new in ((near, "depth=18", "depth=50"), (far, "FasterRCNN", "FCOS")):
        text = (folder / "config.py").read_text()
        (folder / "config.py").write_text(text.replace(old, new))
    write(tmp_path / "fix", "FixMatch", 43)
    assert gains(make_report([tmp_path])) == {"FixMatch": (pytest.approx(3),)}


def test_another_detector_is_no_twin(tmp_path: Path) -> None:
    far = write(tmp_path / "far", "supervised", 20)
    (far / "config.py").write_text((far / "config.py").read_text().replace("FasterRCNN", "FCOS"))
    write(tmp_path / "fix", "FixMatch", 43)
    assert gains(make_report([tmp_path])) == {}


def test_the_twin_of_the_same_sweep_is_taken(tmp_path: Path) -> None:
    for sweep, ap in (("one", 40), ("two", 41)):
        place = {"sweep": sweep, "axes": {"method": "supervised"}, "twin": True}
        write(tmp_path / sweep, "supervised", ap, place=place)
        place = {"sweep": sweep, "axes": {"method": "fixmatch"}, "twin": False}
        write(tmp_path / f"{sweep}_fix", "FixMatch", 43, place=place)
    found = gains(make_report([tmp_path]))
    assert found == {"FixMatch (one)": (pytest.approx(3),), "FixMatch (two)": (pytest.approx(2),)}


def test_twins_that_serve_equally_well_are_told(tmp_path: Path) -> None:
    for name, rate in (("a", "lr=0.01"), ("b", "lr=0.04")):
        folder = write(tmp_path / name, "supervised", 40)
        (folder / "config.py").write_text((folder / "config.py").read_text().replace("lr=0.02", rate))
    write(tmp_path / "fix", "FixMatch", 43)
    report = make_report([tmp_path])
    assert gains(report) == {}
    assert "fix is compared with no twin: a and b serve equally well." in report.tables[0].notes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"test__score_thr": 0.001}, "mixes test score thresholds: 0.001 (fix) and 0.05 (twin)"),
        ({"test__evaluator": "Other"}, "mixes evaluators: Other (fix) and CocoMetric"),
    ],
)
def test_a_twin_tested_in_another_way_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    write(tmp_path / "twin", "supervised", 40)
    write(tmp_path / "fix", "FixMatch", 43, **change)
    with pytest.raises(UserError) as caught:
        make_report([tmp_path])
    assert "fix beside its supervised twin" in str(caught.value) and says in str(caught.value)


def test_rows_tested_in_different_ways_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a", "STAC", 43)
    write(tmp_path / "b", "FixMatch", 43, test__score_thr=0.001)
    notes = make_report([tmp_path]).tables[0].notes
    assert notes[-1] == (
        "Rows were tested with different score thresholds, so their AP can't be compared: 0.001, 0.05."
    )


@pytest.mark.parametrize("status", ["failed", "stopped", "running"])
def test_what_is_not_done_stands_apart(tmp_path: Path, status: str) -> None:
    write(tmp_path / "a", "FixMatch", 43)
    write(tmp_path / "b", "FixMatch", 10, seed=1, status=status)
    report = make_report([tmp_path])
    assert [run.name for run in report.runs] == ["a"] and [run.name for run in report.apart] == ["b"]
    assert report.tables[0].lines[0].summaries["teacher", "AP"].n == 1
