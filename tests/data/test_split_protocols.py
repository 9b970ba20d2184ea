"""The published partial-label draws: NumPy's own generator and the published lists are the oracles."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssod.data.coco_text import CocoText, read_coco_text
from ssod.data.split_protocols import NUM_IMAGES, NUM_WITH_BOX, Parts, drawn, listed, read_lists
from ssod.data.splits import SplitOptions, split_file
from ssod.errors import UserError

PERCENTS = ("0.01", "0.1", "0.5", "1", "2", "5", "10")


def published(fold: int, percent: float, replace: bool, num_images: int = NUM_IMAGES) -> set[int]:
    """The draw as the released tools make it, with the global generator."""
    state = np.random.get_state()
    np.random.seed(fold)
    size = int(percent / 100 * num_images)
    found = set(np.random.choice(range(num_images), size=size, replace=replace).tolist())
    np.random.set_state(state)
    return found


def assert_whole(parts: Parts, num_images: int) -> None:
    """Every image is in one part, and positions ascend."""
    each = [parts.labeled, parts.unlabeled, parts.held_out, parts.left_out]
    np.testing.assert_array_equal(np.sort(np.concatenate(each)), np.arange(num_images))
    assert all((np.diff(part) > 0).all() for part in each)


# ---------------------------------------------------------------- stac and soft_teacher


@pytest.mark.parametrize("fold", [1, 2, 5])
@pytest.mark.parametrize("percent", ["0.5", "1", "10"])
def test_stac_is_numpys_choice_with_replacement(fold: int, percent: str) -> None:
    parts = drawn("stac", NUM_IMAGES, Decimal(percent), fold)
    assert set(parts.labeled.tolist()) == published(fold, float(percent), replace=True)
    assert parts.seed == fold
    assert_whole(parts, NUM_IMAGES)


@pytest.mark.parametrize(("fold", "offset"), [(1, 0), (3, 0), (1, 41)])
def test_soft_teacher_is_numpys_choice_without(fold: int, offset: int) -> None:
    parts = drawn("soft_teacher", NUM_IMAGES, Decimal(10), fold, offset)
    assert set(parts.labeled.tolist()) == published(fold + offset, 10, replace=False)
    assert parts.seed == fold + offset
    assert_whole(parts, NUM_IMAGES)


def test_the_known_counts_of_fold_1_at_10_percent() -> None:
    stac, soft = (drawn(name, NUM_IMAGES, Decimal(10), 1).labeled for name in ("stac", "soft_teacher"))
    assert (len(stac), len(soft)) == (11_285, 11_828)
    assert len(np.intersect1d(stac, soft)) == 52


@pytest.mark.parametrize("protocol", ["stac", "soft_teacher"])
def test_percentages_of_a_fold_are_nested(protocol: str) -> None:
    parts = [set(drawn(protocol, NUM_IMAGES, Decimal(p), 1).labeled.tolist()) for p in PERCENTS]
    assert all(small < large for small, large in pairwise(parts))


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["stac", "soft_teacher"]),
    st.integers(1, 400),
    st.decimals("0.01", "100", places=2),
    st.integers(0, 9),
)
def test_draws_of_any_size(protocol: str, num_images: int, percent: Decimal, fold: int) -> None:
    size = int(float(percent) / 100 * num_images)
    if size == 0:
        with pytest.raises(UserError, match="is less than one"):
            drawn(protocol, num_images, percent, fold)
        return
    parts = drawn(protocol, num_images, percent, fold)
    assert_whole(parts, num_images)
    expected = published(fold, float(percent), protocol == "stac", num_images)
    assert set(parts.labeled.tolist()) == expected


def test_a_seed_that_numpy_does_not_take() -> None:
    with pytest.raises(UserError, match=r"fold 1 \+ seed -2 is no seed"):
        drawn("soft_teacher", 10, Decimal(50), 1, -2)


# ---------------------------------------------------------------- unbiased_teacher and paddle


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> CocoText:
    """118,287 images in shuffled order; 1,021 have no box but a crowd's, or nothing at all."""
    rng = np.random.default_rng(7)
    ids = rng.permutation(np.sort(rng.choice(581_930, NUM_IMAGES, replace=False)))
    without = set(rng.choice(ids, NUM_IMAGES - NUM_WITH_BOX, replace=False).tolist())
    crowds = set(sorted(without)[:400])
    records = ", ".join(
        f'{{"id": {i}, "file_name": "{i:012d}.jpg", "width": 64, "height": 48}}' for i in ids.tolist()
    )
    boxed = [i for i in rng.permutation(ids).tolist() if i not in without or i in crowds]
    truth = ", ".join(
        f'{{"id": {n}, "image_id": {i}, "category_id": 3, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": '
        f"{int(i in crowds)}}}"
        for n, i in enumerate(boxed, 1)
    )
    path = tmp_path_factory.mktemp("coco") / "instances_train2017.json"
    categories = '"categories": [{"id": 3, "name": "car"}]'
    path.write_text(f'{{"images": [{records}], "annotations": [{truth}], {categories}}}')
    return read_coco_text(path)


@pytest.fixture(scope="module")
def lists(data_root: Path) -> Any:
    return read_lists(data_root / "coco_splits" / "unbiased_teacher.json.gz")[0]


def test_unbiased_teacher_is_the_published_list(shuffled: CocoText, lists: Any, data_root: Path) -> None:
    """All percentages and seeds, against the list applied by hand to sorted ids with a box."""
    with gzip.open(data_root / "coco_splits" / "unbiased_teacher.json.gz") as file:
        published_lists = json.load(file)["lists"]
    with_box = shuffled.with_box()
    assert with_box.sum() == NUM_WITH_BOX
    ids = np.asarray(shuffled.ids)
    indexed = np.sort(ids[with_box])
    drawn_so_far = 0
    for percent, seeds in published_lists.items():
        for seed, chosen in seeds.items():
            parts = listed(
                "unbiased_teacher", shuffled.ids, with_box, lists, Decimal(percent).normalize(), int(seed)
            )
            np.testing.assert_array_equal(np.sort(ids[parts.labeled]), np.sort(indexed[chosen]))
            assert len(parts.labeled) == int(float(percent) / 100 * NUM_WITH_BOX)
            np.testing.assert_array_equal(parts.left_out, np.flatnonzero(~with_box))
            assert_whole(parts, NUM_IMAGES)
            drawn_so_far += 1
    assert drawn_so_far == 70


def test_a_published_split_as_files(shuffled: CocoText, data_root: Path, tmp_path: Path) -> None:
    options = SplitOptions(
        "unbiased_teacher",
        percents=("0.01",),
        folds=(3,),
        list_path=data_root / "coco_splits" / "unbiased_teacher.json.gz",
    )
    (name, entry), *others = split_file(shuffled.path, tmp_path, options).items()
    assert name == "instances_train2017.3@0.01" and not others
    counts = [entry[part]["num_images"] for part in ("labeled", "unlabeled")]
    assert (counts, entry["num_left_out"]) == ([11, NUM_WITH_BOX - 11], NUM_IMAGES - NUM_WITH_BOX)
    labeled = json.loads((tmp_path / f"{name}.json").read_text())
    assert {one["image_id"] for one in labeled["annotations"]} == {one["id"] for one in labeled["images"]}
    assert len(labeled["images"]) == 11 and len(entry["list_sha256"]) == 64 and entry["note"] is None


def test_paddle_is_the_list_over_all_images(shuffled: CocoText, lists: Any) -> None:
    ids = np.asarray(shuffled.ids)
    for percent, seed in (("1", 0), ("10", 9)):
        parts = listed("paddle", shuffled.ids, shuffled.with_box(), lists, Decimal(percent), seed)
        expected = np.sort(ids)[lists[Decimal(percent)][seed]]
        np.testing.assert_array_equal(np.sort(ids[parts.labeled]), np.sort(expected))
        assert len(parts.left_out) == 0
        assert_whole(parts, NUM_IMAGES)


def test_another_file_is_refused(shuffled: CocoText, lists: Any) -> None:
    with_box = shuffled.with_box()
    some = shuffled.ids[:-1]
    for protocol in ("unbiased_teacher", "paddle"):
        with pytest.raises(UserError, match=r"118,287 images.*this file has 118,286 images"):
            listed(protocol, some, with_box[:-1], lists, Decimal(10), 1)
    changed = with_box.copy()
    changed[np.flatnonzero(with_box)[0]] = False
    with pytest.raises(UserError, match=r"117,266 of them with a box; this file has .* 117,265 of them"):
        listed("unbiased_teacher", shuffled.ids, changed, lists, Decimal(10), 1)
    listed("paddle", shuffled.ids, changed, lists, Decimal(10), 1)  # which doesn't look at boxes


def test_what_the_list_does_not_have(shuffled: CocoText, lists: Any) -> None:
    given = (shuffled.ids, shuffled.with_box())
    with pytest.raises(UserError, match=r"no 3 %: use --percent 0\.01, 0\.1, 0\.5, 1, 2, 5, 10"):
        listed("paddle", *given, lists, Decimal(3), 1)
    with pytest.raises(UserError, match="no fold 10 at 5 %: use --fold 0, 1, 2"):
        listed("paddle", *given, lists, Decimal(5), 10)
    for wrong in ([5, 5], [NUM_IMAGES], [-1]):
        with pytest.raises(UserError, match="index twice or outside"):
            listed("paddle", *given, {Decimal(5): {1: wrong}}, Decimal(5), 1)


def test_the_lists_come_in_three_dresses(tmp_path: Path) -> None:
    """COCO_supervision.txt, and the same below `lists`, packed or not."""
    content = {"0.5": {"0": [3, 1], "1": [2]}, "10.0": {"0": [4]}}
    expected = {Decimal("0.5"): {0: [3, 1], 1: [2]}, Decimal(10): {0: [4]}}
    (tmp_path / "COCO_supervision.txt").write_text(json.dumps(content))
    (tmp_path / "lists.json").write_text(json.dumps({"source": "x", "lists": content}))
    (tmp_path / "lists.json.gz").write_bytes(gzip.compress((tmp_path / "lists.json").read_bytes()))
    for name in ("COCO_supervision.txt", "lists.json", "lists.json.gz"):
        assert read_lists(tmp_path / name)[0] == expected
    assert read_lists(tmp_path / "lists.json")[1] == read_lists(tmp_path / "lists.json.gz")[1]


@pytest.mark.parametrize(
    "content",
    [b"", b"no json", b"[1]", b'{"x": 1}', b'{"1": {"0": ["a"]}}', b'{"1": {"0": []}}', b"\x1f\x8bx"],
)
def test_a_file_that_is_no_list(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"list\.txt can't be read") as caught:
        read_lists(tmp_path / "list.txt")
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt can't be read"):
        read_lists(tmp_path / "gone.txt")
