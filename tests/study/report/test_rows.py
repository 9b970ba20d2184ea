"""What stands in one row, what the rows are called, and what may not be averaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reference.report_runs import digest, result, write_run

from ssod.errors import UserError
from ssod.study.report.labels import short
from ssod.study.report.rows import make_rows, names
from ssod.study.report.sections import Row, section_of
from ssod.study.results import find_runs

AP = {"teacher": [40.0, 60.0, 42.0]}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Function: writes a run; `config`, `method` and `place` go to write_run, the rest to result."""

    def write(name: str, method: str = "SoftTeacher", seed: int = 0, **more: Any) -> Path:
        options = {key: more.pop(key) for key in ("place", "text", "config") if key in more}
        config = options.get("config", {})
        return write_run(
            tmp_path / name,
            result(method, seed, AP, **more),
            method=options.get("text"),
            place=options.get("place"),
            **config,
        )

    return write


def rows(folder: Path) -> list[Row]:
    return make_rows(find_runs([folder]))


def labels(folder: Path) -> dict[str, list[str]]:
    return {row.label: [run.name for run in row.runs] for row in rows(folder)}


def fold(number: int, protocol: str = "stac", percent: float = 10) -> dict[str, Any]:
    return {
        "split__protocol": protocol,
        "split__percent": percent,
        "split__fold": number,
        "split__ids_sha256": digest(f"{protocol} {percent} {number}"),
        "config": {"labeled": f"semi/train.{number}@{percent}.json"},
    }


# ---------------------------------------------------------------- rows and labels


def test_runs_that_differ_in_seed_and_fold_are_a_row(make: Make, tmp_path: Path) -> None:
    for number in (1, 2):
        for seed in (0, 1):
            make(f"f{number}s{seed}", seed=seed, **fold(number))
    assert labels(tmp_path) == {"Soft Teacher": ["f1s0", "f1s1", "f2s0", "f2s1"]}


def test_rows_of_a_method_are_told_apart_by_their_options(make: Make, tmp_path: Path) -> None:
    make("a", text="dict(type='SoftTeacher', num_jitters=10)")
    make("b", text="dict(type='SoftTeacher', num_jitters=0)")
    make("c", text="dict(type='SoftTeacher')")
    make("d", method="FixMatch")
    assert labels(tmp_path) == {
        "FixMatch": ["d"],
        "Soft Teacher, num_jitters=10": ["a"],
        "Soft Teacher, num_jitters=0": ["b"],
        "Soft Teacher": ["c"],
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("x/shapes.py", "x/shapes_ema.py"), ["Soft Teacher, shapes", "Soft Teacher, shapes_ema"]),
        (
            ("x/shapes.py", "y/shapes.py"),
            [f"Soft Teacher, a={n}, b={n}, c={n}, 1 more options" for n in (1, 2)],
        ),
    ],
)
def test_many_options_are_named_by_their_files(
    make: Make, tmp_path: Path, files: tuple[str, str], expected: list[str]
) -> None:
    """Where the files have the same name, the first few options must do."""
    for number, path in enumerate(files, 1):
        text = f"dict(type='SoftTeacher', a={number}, b={number}, c={number}, d={number})"
        write_run(tmp_path / f"{number}", result("SoftTeacher", 0, AP, config=path), method=text)
    assert list(labels(tmp_path)) == expected


def test_a_sweep_names_its_rows(make: Make, tmp_path: Path) -> None:
    for method, rung, seed in (
        ("soft_teacher", "soft", 0),
        ("soft_teacher", "jitter", 0),
        ("soft_teacher", "jitter", 1),
    ):
        axes = {"method": method, "percent": 10, "rung": rung, "seed": seed, "fold": 1}
        make(f"{rung}{seed}", seed=seed, place={"sweep": "ladder", "axes": axes, "twin": False})
    assert labels(tmp_path) == {
        "Soft Teacher, rung=jitter": ["jitter0", "jitter1"],
        "Soft Teacher, rung=soft": ["soft0"],
    }


def test_options_a_sweep_does_not_name_are_told(make: Make, tmp_path: Path) -> None:
    axes = {"method": "soft_teacher"}
    for seed, weight in ((0, 2.0), (1, 4.0)):
        text = f"dict(type='SoftTeacher', unsup_weight={weight})"
        make(f"s{seed}", seed=seed, text=text, place={"sweep": "x", "axes": axes})
    (row,) = rows(tmp_path)
    assert row.notes == ["Soft Teacher: s1 has another model.method.unsup_weight than s0"]


def test_supervised_comes_first_then_simple_methods(make: Make, tmp_path: Path) -> None:
    for method in ("Another", "SoftTeacher", "supervised", "MeanTeacher"):
        make(method, method=method)
    assert list(labels(tmp_path)) == ["Supervised", "Mean Teacher", "Soft Teacher", "Another"]


def test_the_shortest_name_that_is_no_others() -> None:
    keys = ["model.method.score", "model.teacher.score", "lr"]
    assert [short(key, keys) for key in keys] == ["method.score", "teacher.score", "lr"]


# ---------------------------------------------------------------- sections


def test_shares_protocols_and_data_are_sections_of_their_own(make: Make, tmp_path: Path) -> None:
    make("a", **fold(1))
    make("b", **fold(1, percent=5))
    make("c", **fold(1, protocol="soft_teacher"))
    make("d")
    make("e", config={"root": "/somewhere/else/bccd"})
    titles = [row.section.title for row in rows(tmp_path)]
    assert titles == [
        "bccd, 50 labeled images",
        "shapes, 50 labeled images",
        "shapes, 10 % labeled, protocol soft_teacher",
        "shapes, 5 % labeled, protocol stac",
        "shapes, 10 % labeled, protocol stac",
    ]


def test_the_section_of_a_run_without_a_method_is_its_methods(make: Make, tmp_path: Path) -> None:
    """The supervised twin's loader holds one dataset, the method's a list of two."""
    make("a", **fold(1))
    twin = make("b", method="supervised", **fold(1))
    text = (twin / "config.py").read_text()
    one = "dataset=dict(ann_file='semi/train.1@10.json', data_root='/far/shapes', type='LabeledCoco'))"
    start, end = text.index("    dataset=dict(\n        datasets"), text.index("val_dataloader")
    (twin / "config.py").write_text(f"{text[:start]}    {one}\n{text[end:]}")
    first, second = find_runs([tmp_path])
    assert section_of(first) == section_of(second)


# ---------------------------------------------------------------- refusals

DIFFERENCES: list[tuple[str, dict[str, Any], str]] = [
    ("iteration", {"iterations": 900}, "mixes iteration counts: 1800 (a, b) and 900 (c)"),
    ("threshold", {"test__score_thr": 0.001}, "mixes test score thresholds: 0.05 (a, b) and 0.001 (c)"),
    (
        "evaluator",
        {"test__evaluator": "Other"},
        "mixes evaluators: CocoMetric (pycocotools 2.0.10) (a, b) and Other (c)",
    ),
    (
        "batch",
        {"batch__unlabeled": 4},
        "mixes batch sizes (labeled, unlabeled): (8, 8) (a, b) and (8, 4) (c)",
    ),
    (
        "processes",
        {"world_size": 2},
        "mixes batch sizes (labeled, unlabeled): (8, 8) (a, b) and (16, 16) (c)",
    ),
    ("protocol", {"split__protocol": "own"}, "mixes split protocols: file (a, b) and own (c)"),
]


@pytest.mark.parametrize(
    ("change", "says"), [row[1:] for row in DIFFERENCES], ids=[row[0] for row in DIFFERENCES]
)
def test_what_differs_is_not_averaged(make: Make, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    make("a", seed=0)
    make("b", seed=1)
    same_config = {"iterations": 1800} if "iterations" in change else {}
    make("c", seed=2, **change, config=same_config)
    with pytest.raises(UserError) as caught:
        rows(tmp_path)
    assert str(caught.value) == f'row "Soft Teacher" {says}; report them apart, or leave some out'


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (fold(2, percent=5), "mixes labeled shares (%): 10 (a) and 5 (b)"),
        ({**fold(2), "config": {"root": "bccd"}}, "mixes data: shapes (a) and bccd (b)"),
        (fold(2, protocol="own"), "mixes split protocols: stac (a) and own (b)"),
    ],
    ids=["share", "data", "protocol"],
)
def test_a_sweep_does_not_hide_a_difference(
    make: Make, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    place = {"sweep": "x", "axes": {"method": "soft_teacher", "seed": 0}}
    make("a", place=place, **fold(1))
    make("b", place=place, **change)
    with pytest.raises(UserError) as caught:
        rows(tmp_path)
    assert says in str(caught.value)


def test_protocols_with_the_same_seeds_were_meant_to_be_two_tables(make: Make, tmp_path: Path) -> None:
    for protocol in ("own", "stac"):
        for seed in (0, 1):
            make(f"{protocol}{seed}", seed=seed, **fold(1, protocol))
    found = [(row.section.protocol, len(row.runs)) for row in rows(tmp_path)]
    assert found == [("own", 2), ("stac", 2)]


def test_a_run_does_not_count_twice(make: Make, tmp_path: Path) -> None:
    make("a")
    make("b")
    with pytest.raises(UserError, match='row "Soft Teacher": a and b have the same seed and labeled images'):
        rows(tmp_path)


def test_long_lists_of_names_are_cut() -> None:
    assert names(list("abcd")) == "a, b, c and 1 more" and names(list("abc")) == "a, b, c"
