"""Parts of a COCO file are pieces of its text: json.load of both is the oracle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssod.data.coco_text import read_coco_text
from ssod.errors import UserError

CATEGORIES = [{"id": 7, "name": "Zebra é"}, {"id": 3, "name": "b]}{"}]
TRICKY = st.sampled_from(["a.jpg", "é]}.png", 'quote".jpg', "back\\slash", "{[,:", "日本.jpg"])


@st.composite
def coco(draw: Callable[..., Any]) -> dict[str, Any]:
    """A COCO file: nested masks, odd names, lists in any order, sections that may be empty."""
    ids = draw(st.lists(st.integers(0, 99), unique=True, max_size=8))
    images = [dict(id=i, file_name=draw(TRICKY), width=5, height=4) for i in ids]
    truth = [
        dict(
            id=n,
            image_id=draw(st.sampled_from(ids)),
            category_id=draw(st.sampled_from([7, 3])),
            bbox=draw(st.lists(st.floats(0, 9, width=32), min_size=4, max_size=4)),
            segmentation=draw(st.sampled_from([[], [[1.5, 2, 3]], {"counts": "[}", "size": [4, 5]}])),
            iscrowd=draw(st.integers(0, 1)),
        )
        for n in range(draw(st.integers(0, 9)) if ids else 0)
    ]
    sections = [("info", {"year": 1}), ("images", images), ("annotations", truth), ("categories", CATEGORIES)]
    return dict(draw(st.permutations(sections)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(coco(), st.booleans(), st.sampled_from([None, 1, "\t"]), st.data())
def test_a_part_equals_the_filtered_file(
    tmp_path: Path, content: dict[str, Any], ascii_only: bool, indent: Any, data: Any
) -> None:
    source = tmp_path / "all.json"
    source.write_text(json.dumps(content, ensure_ascii=ascii_only, indent=indent), encoding="utf-8")
    text = read_coco_text(source)
    assert text.ids == [image["id"] for image in content["images"]]
    flags = [bool(data.draw(st.booleans())) for _ in text.ids]
    chosen = {i for i, flag in zip(text.ids, flags, strict=True) if flag}
    expected = {key: value for key, value in content.items() if key in ("info", "categories")}
    expected["images"] = [image for image in content["images"] if image["id"] in chosen]
    truth = [one for one in content["annotations"] if one["image_id"] in chosen]
    for with_truth in (True, False):
        text.write_part(tmp_path / "part.json", np.flatnonzero(flags), with_truth)
        found = json.loads((tmp_path / "part.json").read_text(encoding="utf-8"))
        assert found == {**expected, "annotations": truth if with_truth else []}
    assert len(text.annotations_of(np.flatnonzero(flags))) == len(truth)
    boxed = {one["image_id"] for one in content["annotations"] if not one["iscrowd"]}
    assert text.with_box().tolist() == [i in boxed for i in text.ids]
    assert {each.name for each in tmp_path.iterdir()} == {"all.json", "part.json"}


def write(path: Path, **sections: Any) -> Path:
    content = dict(images=[dict(id=1, file_name="a.jpg", width=5, height=4)], annotations=[])
    path.write_text(json.dumps({**content, "categories": CATEGORIES, **sections}))
    return path


def test_numbers_stay_as_they_were_written(tmp_path: Path) -> None:
    truth = '{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1.50, 2e0, 0.10, 7]}'
    source = write(tmp_path / "all.json")
    source.write_text(source.read_text().replace('"annotations": []', f'"annotations": [{truth}]'))
    read_coco_text(source).write_part(tmp_path / "part.json", np.array([0]), True)
    assert truth in (tmp_path / "part.json").read_text()


def test_what_a_person_said_of_an_image_stays_in_the_labeled_part(tmp_path: Path) -> None:
    """LVIS lists the classes that an image does not show; labeling tools add tags."""
    facts = dict(id=1, file_name="a.jpg", width=5, height=4, license=2, coco_url="http://x")
    image = {**facts, "neg_category_ids": [7], "tags": ["zebra"]}
    extra = dict(segment_info=["zebra"], licenses=[{"id": 2}])
    text = read_coco_text(write(tmp_path / "all.json", images=[image, {**facts, "id": 2}], **extra))
    text.write_part(tmp_path / "labeled.json", np.array([0]), True)
    text.write_part(tmp_path / "unlabeled.json", np.array([0, 1]), False)
    unlabeled = json.loads((tmp_path / "unlabeled.json").read_text())
    assert json.loads((tmp_path / "labeled.json").read_text())["images"] == [image]
    assert unlabeled["images"] == [facts, {**facts, "id": 2}] and unlabeled["licenses"] == [{"id": 2}]
    assert set(unlabeled) == {"images", "annotations", "categories", "licenses"}


IMAGE = dict(id=1, file_name="a.jpg", width=5, height=4)
BOX = dict(id=1, image_id=1, category_id=3, bbox=[1, 1, 2, 2])


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (dict(images={}), "has no list 'images'"),
        (dict(annotations=None), "has no list 'annotations'"),
        (dict(categories={}), "has no list 'categories'"),
        (dict(categories=[3]), "record 0 of 'categories' .* id None"),
        (dict(categories=[*CATEGORIES, CATEGORIES[0]]), "ids in 'categories' .* not unique"),
        (dict(images=[IMAGE, 4]), "record 1 of 'images' .* is no object"),
        (dict(images=[IMAGE, IMAGE]), "ids in 'images' .* not unique"),
        (dict(images=[{**IMAGE, "id": True}]), "record 0 of 'images' .* has the id True"),
        (dict(images=[{**IMAGE, "id": [1]}]), "has the id"),
        (dict(images=[IMAGE, {**IMAGE, "id": "2"}]), "numbers and strings"),
        (dict(annotations=[BOX, {**BOX, "image_id": 9}]), "annotation number 1 .* image_id 9, which"),
        (dict(annotations=[{**BOX, "image_id": [1]}]), r"number 0 .* image_id \[1\], which"),
        (dict(annotations=[{**BOX, "category_id": 4}]), "category_id 4, which"),
    ],
)
def test_faulty_files(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read_coco_text(write(tmp_path / "all.json", **sections))
    assert "all.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"images"',
        '{"images": [{"id": 1}',
        '{"images": [}',
        "{} {}",
        '{"a": 1,}',
        "\xff",
        "[" * 9,
    ],
)
def test_what_is_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "all.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"all\.json is not valid JSON") as caught:
        read_coco_text(tmp_path / "all.json")
    assert "\n" not in str(caught.value)


def test_two_lists_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text('{"images": [], "images": [], "annotations": [], "categories": []}')
    with pytest.raises(UserError, match="two lists 'images'"):
        read_coco_text(tmp_path / "all.json")
    with pytest.raises(UserError, match=r"cannot read annotation file .*gone\.json \(No such file"):
        read_coco_text(tmp_path / "gone.json")


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    text = read_coco_text(write(tmp_path / "all.json"))
    with pytest.raises(UserError, match=r"cannot write .*part\.json"):
        text.write_part(tmp_path / "gone" / "part.json", np.array([0]), True)
