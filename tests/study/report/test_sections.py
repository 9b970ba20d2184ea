"""Which runs are of one section: names of splits, the files that runs are tested on, and titles."""

from __future__ import annotations

import csv
import re
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from reference.report_runs import digest, result, write_run

from ssod.data.own_splits import Amount
from ssod.errors import UserError
from ssod.study.report.sections import section_of, titles
from ssod.study.report.tables import Report, make_report
from ssod.study.report.write import write_report
from ssod.study.results import find_runs

AP = {"teacher": [40.0, 60.0, 42.0]}
COUNT, PER_CLASS = Amount(count=20), Amount(per_class=5)


def drawn(amount: Amount, fold: int, num_labeled: int, manifest: bool = True) -> dict[str, Any]:
    """The split and the labeled file of a run on what tools/split_data.py drew."""
    split = {
        "protocol": "own" if manifest else "file",
        "percent": float(amount.percent) if manifest and amount.percent is not None else None,
        "fold": fold if manifest else None,
        "num_labeled": num_labeled,
        "ids_sha256": digest(f"{amount} {fold}"),
    }
    return {"split": split, "labeled": f"splits/train.{fold}@{amount}.json"}


def write(folder: Path, method: str = "FixMatch", seed: int = 0, **more: Any) -> None:
    """A run; axes: of a sweep, `labeled` and `tested` go to the config, the rest to result.json."""
    files = {key: more.pop(key) for key in ("labeled", "tested") if key in more}
    axes = more.pop("axes", None)
    place = axes and {"sweep": "x", "axes": {"method": method, **axes}}
    write_run(folder, result(method, seed, AP, **more), place=place, **files)


def rows(report: Report) -> list[tuple[str, str, int]]:
    return [
        (table.title, line.row.label, len(line.row.runs)) for table in report.tables for line in table.lines
    ]


# ---------------------------------------------------------------- folds


@pytest.mark.parametrize(
    "amount", [Amount(percent=Decimal(10)), Amount(percent=Decimal("0.5")), COUNT, PER_CLASS], ids=str
)
def test_the_names_that_split_data_writes_are_one_file(tmp_path: Path, amount: Amount) -> None:
    for fold in (1, 12):
        write(tmp_path / f"{fold}", **drawn(amount, fold, 20))
    one, two = map(section_of, find_runs([tmp_path]))
    assert one == two and one.labeled_file == "train"


@pytest.mark.parametrize("axes", [{}, {"set": "a"}], ids=["configs", "sweep"])
@pytest.mark.parametrize(
    ("amount", "numbers", "title"),
    [
        (COUNT, (20, 20), "shapes, 20 labeled images"),
        (COUNT, (20, 19), "shapes, 20 labeled images"),  # filter_cfg dropped one
        (PER_CLASS, (11, 12), "shapes, 5 labeled images per class"),
    ],
)
def test_folds_of_counts_are_averaged(
    tmp_path: Path, amount: Amount, numbers: tuple[int, int], title: str, axes: dict[str, Any]
) -> None:
    for method, (fold, number) in product(("supervised", "FixMatch"), enumerate(numbers, 1)):
        more = {"axes": {**axes, "fold": fold}} if axes else {}
        write(tmp_path / f"{method}{fold}", method, **drawn(amount, fold, number), **more)
    report = make_report([tmp_path])
    assert [(where, count) for where, _, count in rows(report)] == [(title, 2), (title, 2)]
    assert report.tables[0].lines[1].gains["teacher", "AP"].n == 2  # each fold has found its twin


@pytest.mark.parametrize(
    ("one", "two", "says"),
    [
        (drawn(COUNT, 1, 20), drawn(Amount(count=40), 2, 40), "numbers of labeled images: 20 (a) and 40 (b)"),
        (drawn(PER_CLASS, 1, 11), drawn(Amount(per_class=6), 2, 11), "images per class: 5 (a) and 6 (b)"),
        # Without a manifest nobody has checked that the file is what its name says.
        (drawn(COUNT, 1, 20, manifest=False), drawn(COUNT, 2, 40, manifest=False), "20 (a) and 40 (b)"),
    ],
    ids=["count", "per class", "no manifest"],
)
def test_other_amounts_are_not_averaged(
    tmp_path: Path, one: dict[str, Any], two: dict[str, Any], says: str
) -> None:
    write(tmp_path / "a", axes={"fold": 1}, **one)
    write(tmp_path / "b", axes={"fold": 2}, **two)
    with pytest.raises(UserError) as caught:
        make_report([tmp_path])
    assert says in str(caught.value)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tested": "annotations/easy.json"}, "tested files: val (a) and easy (b)"),
        ({"labeled": "annotations/more.json"}, "labeled files: train_labeled (a) and more (b)"),
    ],
)
def test_a_sweeps_row_is_of_one_tested_and_one_labeled_file(
    tmp_path: Path, change: dict[str, str], says: str
) -> None:
    write(tmp_path / "a", axes={"seed": 0})
    write(tmp_path / "b", seed=1, axes={"seed": 1}, **change)
    with pytest.raises(UserError) as caught:
        make_report([tmp_path])
    assert str(caught.value) == f'row "FixMatch" mixes {says}; report them apart, or leave some out'


def test_a_sweeps_folds_may_be_files_of_any_name(tmp_path: Path) -> None:
    for fold, name in ((1, "first"), (2, "second")):
        more = {"split__ids_sha256": digest(name), "labeled": f"folds/{name}.json"}
        write(tmp_path / name, axes={"fold": fold}, **more)
    report = make_report([tmp_path])
    assert rows(report) == [("shapes, 50 labeled images", "FixMatch", 2)]
    assert report.tables[0].notes == ["FixMatch: no supervised twin, so no Δ."]


def test_an_evaluators_file_is_noted(tmp_path: Path) -> None:
    for seed, name in enumerate(("val", "easy")):
        write(tmp_path / f"s{seed}", seed=seed, axes={"seed": seed})
        with (tmp_path / f"s{seed}/config.py").open("a") as file:
            file.write(f"val_evaluator = dict(ann_file='annotations/{name}.json')\n")
    notes = make_report([tmp_path]).tables[0].notes
    assert notes[0] == "FixMatch: s1 has another val_evaluator.ann_file than s0."


# ---------------------------------------------------------------- titles

ALIKE = [
    ({"tested": "a/val.json"}, {"tested": "a/test.json"}, ["tested on test", "tested on val"]),
    (
        {"labeled": "a/one.json"},
        {"labeled": "a/two.json"},
        ["labeled images of one", "labeled images of two"],
    ),
    ({"split__protocol": "file"}, {"split__protocol": "own"}, ["protocol file", "protocol own"]),
]


@pytest.mark.parametrize(("one", "two", "words"), ALIKE, ids=["tested", "labeled", "protocol"])
def test_equal_titles_are_told_apart_in_every_format(
    tmp_path: Path, one: dict[str, Any], two: dict[str, Any], words: list[str]
) -> None:
    """Two methods with two seeds each, so differences.csv has lines; the words are sorted as sections are."""
    for place, files in enumerate((one, two)):
        for method, seed in product(("FixMatch", "MeanTeacher"), (0, 1)):
            write(tmp_path / f"runs/{place}{method}{seed}", method, seed, **files)
    expected = [f"shapes, 50 labeled images, {each}" for each in words]
    write_report(make_report([tmp_path / "runs"]), tmp_path / "out")
    text = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    plain = {name: each.replace("\\", "") for name, each in text.items()}
    assert re.findall("(?m)^## (shapes.*)$", plain["report.md"]) == expected
    assert re.findall(r"\\caption\{(shapes.*?)\. AP", text["report.tex"]) == expected
    assert re.findall('<a href="#section-.">(.*?)</a>', text["report.html"]) == expected
    assert re.findall("<h2 id=.*?>(shapes.*?)</h2>", text["report.html"]) == expected
    for name in ("report.csv", "differences.csv", "runs.csv"):
        lines = list(csv.DictReader(text[name].splitlines()))
        assert list(dict.fromkeys(each["section"] for each in lines)) == expected
        keys = ("dataset", "protocol", "percent", "labeled_file", "tested_file")
        assert len({tuple(each[key] for key in keys) for each in lines}) == 2


def test_titles_that_differ_stay_short(tmp_path: Path) -> None:
    write(tmp_path / "a", **drawn(COUNT, 1, 20), tested="a/val.json")
    write(tmp_path / "b", **drawn(PER_CLASS, 1, 20), tested="a/test.json")
    found = titles([section_of(run) for run in find_runs([tmp_path])])
    assert found == ["shapes, 20 labeled images", "shapes, 5 labeled images per class"]
