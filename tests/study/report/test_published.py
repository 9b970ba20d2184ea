"""Published numbers stand only beside runs on the same data, protocol and share of labels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ssod.study.report.published import published_for
from ssod.study.report.sections import Section

COCO = Section("coco", "instances_train2017", "instances_val2017", "stac", 10, None)


def test_the_protocol_decides_which() -> None:
    found, why = published_for(COCO)
    assert why == "" and {each.method: each.ap for each in found}["Soft Teacher (mmdet 3.x)"] == 33.8
    assert "PseCo" not in {each.method for each in found}
    other, _ = published_for(replace(COCO, protocol="soft_teacher"))
    assert {each.method: each.ap for each in other} == {
        "Supervised": 26.94,
        "Soft Teacher (paper)": 34.04,
        "PseCo": 36.06,
        "Consistent-Teacher (RetinaNet)": 40.2,
        "Semi-DETR (DINO)": 43.5,
    }


def test_a_share_that_a_source_leaves_out_is_left_out() -> None:
    found, _ = published_for(replace(COCO, percent=2))
    assert {each.method for each in found} == {"STAC", "Soft Teacher (mmdet 3.x)"}
    assert (
        next(each for each in found if each.method == "STAC").source
        == "arXiv 2005.04757 (as commonly quoted)"
    )


@pytest.mark.parametrize(
    ("section", "why"),
    [
        (
            replace(COCO, labeled_file="train_labeled", dataset="shapes"),
            "they are for COCO train2017.*this is shapes",
        ),
        (
            replace(COCO, tested_file="instances_minival2014"),
            "they are for COCO train2017, tested on val2017",
        ),
        (replace(COCO, dataset=None, labeled_file=None), "unknown data"),
        (replace(COCO, protocol="paddle"), "none that we know is for split protocol paddle"),
        (replace(COCO, percent=7.5), "No published numbers for 7.5 % labeled images under protocol stac"),
        (replace(COCO, percent=None, num_labeled=118287), "this split has no percentage"),
    ],
)
def test_otherwise_a_sentence_says_why(section: Section, why: str) -> None:
    found, said = published_for(section)
    assert found == [] and re.search(why, said)


def test_every_number_has_a_source() -> None:
    for percent in (1, 2, 5, 10):
        for protocol in ("stac", "soft_teacher", "unbiased_teacher"):
            for each in published_for(replace(COCO, percent=percent, protocol=protocol))[0]:
                assert each.source and 5 < each.ap < 50


def test_the_file_is_shipped() -> None:
    import configparser

    settings = configparser.ConfigParser()
    settings.read(Path(__file__).resolve().parents[3] / "setup.cfg", encoding="utf-8")
    patterns = settings["options.package_data"]["ssod.study.report"].split(", ")
    import ssod.study.report.published as module

    for path in Path(module.__file__).parent.iterdir():
        if path.suffix not in (".py", ".pyc") and path.is_file():
            assert any(path.match(pattern) for pattern in patterns), path
