"""One planted fault in the data at a time: exactly its finding, with its severity and place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ssod.errors import UserError

from ...reference.doctor_world import World

pytestmark = pytest.mark.usefixtures("registered", "no_collection")


def box(world: World, part: str, bbox: list[Any], **more: Any) -> None:
    """Adds a box to a part's first image."""
    file = world.files[part]
    record = dict(id=9999, image_id=file["images"][0]["id"], category_id=1, bbox=bbox, area=100.0)
    file["annotations"].append({**record, **more})


def copy_box(world: World, part: str, **changes: Any) -> None:
    """Adds a part's first box again, changed."""
    file = world.files[part]
    file["annotations"].append({**file["annotations"][0], "id": 9999, **changes})


def copy_image(world: World, part: str, index: int = 0, **changes: Any) -> None:
    """Adds a part's image again, changed."""
    file = world.files[part]
    file["images"].append({**file["images"][index], **changes})


def number_twice(world: World, part: str) -> None:
    """Gives two images of a part one id."""
    first, second = world.files[part]["images"][:2]
    for one in world.files[part]["annotations"]:
        if one["image_id"] == second["id"]:
            one["image_id"], one["bbox"] = first["id"], [*one["bbox"][:3], 30]
    second.update(id=first["id"])


def as_corners(world: World, part: str) -> None:
    for one in world.files[part]["annotations"]:
        x, y, width, height = one["bbox"]
        one["bbox"] = [x + 15, y + 15, x + width + 15, y + height + 15]


def without_class(world: World, part: str, category: int, kept: int = 0) -> None:
    boxes = world.files[part]["annotations"]
    of_class = [one for one in boxes if one["category_id"] == category]
    for one in of_class[kept:]:
        boxes.remove(one)


def third_category(world: World, part: str) -> None:
    world.files[part]["categories"].append({"id": 3, "name": "washer"})
    box(world, part, [1, 1, 20, 20], category_id=3)


def move_image(world: World, part: str, other: str) -> None:
    """Copies the bytes of a part's image over one of another part, of the same size."""
    shutil.copy(world.image(part), world.image(other))


def share_file(world: World, part: str, other: str) -> None:
    """Makes a part read another one's file and folder."""
    world.dataset(part).update(ann_file=f"{other}.json", data_prefix=dict(img=f"{other}/"))


def turn(world: World) -> None:
    """A JPEG that a viewer shows with the sides swapped."""
    path = world.folder / "val" / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(world.image("val")).save(path, exif=exif)
    world.files["val"]["images"][0]["file_name"] = path.name


def cut(path: Path) -> None:
    """Cuts the second half of a file off."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def all_landscape(world: World) -> None:
    file = world.files["labeled"]
    kept = {one["id"] for one in file["images"] if one["width"] > one["height"]}
    file["images"] = [one for one in file["images"] if one["id"] in kept]
    file["annotations"] = [one for one in file["annotations"] if one["image_id"] in kept]


NAN, INF = float("nan"), float("inf")
Fault = tuple[Callable[[World], Any], str, str, str]  # what is done, severity, code, part
FAULTS: list[Fault] = [
    (lambda w: w.dataset("val").update(ann_file="gone.json"), "fails", "annotations-unreadable", "val"),
    (lambda w: w.files["val"].pop("categories"), "fails", "annotations-unreadable", "val"),
    (lambda w: w.files["val"]["images"][1].update(width="97"), "fails", "annotations-unreadable", "val"),
    (lambda w: copy_box(w, "labeled", id=[3]), "fails", "annotations-unreadable", "labeled"),
    (lambda w: w.files["val"]["categories"][0].update(name=1), "fails", "annotations-unreadable", "val"),
    (lambda w: w.files["unlabeled"].update(images=[]), "fails", "no-image", "unlabeled"),
    (lambda w: w.dataset("labeled").update(only_ids=[]), "fails", "no-image", "labeled"),
    (lambda w: w.files["unlabeled"]["images"][1].pop("width"), "fails", "incomplete-record", "unlabeled"),
    (lambda w: w.files["labeled"]["annotations"][1].pop("area"), "fails", "incomplete-record", "labeled"),
    (lambda w: number_twice(w, "val"), "fails", "duplicate-image-id", "val"),
    (lambda w: copy_box(w, "labeled", id=100, category_id=2), "fails", "duplicate-annotation-id", "labeled"),
    (lambda w: copy_image(w, "labeled", id=77), "hurts", "image-listed-twice", "labeled"),
    (lambda w: copy_image(w, "val", id=77), "lies", "image-listed-twice", "val"),
    (lambda w: copy_box(w, "labeled", image_id=55), "hurts", "annotation-of-unknown-image", "labeled"),
    (lambda w: box(w, "labeled", [1, 1, 9, 9], category_id=7), "hurts", "unknown-category", "labeled"),
    (lambda w: box(w, "test", [1, 1, 9, 9], category_id=7), "lies", "unknown-category", "test"),
    (lambda w: w.files["val"]["categories"].reverse(), "fails", "classes-not-of-file", "val"),
    (lambda w: w.files["test"]["categories"][0].update(name="screw"), "fails", "classes-not-of-file", "test"),
    (lambda w: third_category(w, "labeled"), "note", "category-left-out", "labeled"),
    (lambda w: without_class(w, "labeled", 2), "hurts", "class-without-labels", "labeled"),
    (lambda w: without_class(w, "val", 2), "note", "class-not-evaluated", "val"),
    (lambda w: without_class(w, "labeled", 2, 9), "note", "class-with-few-labels", "labeled"),
    (lambda w: w.files["val"]["annotations"].clear(), "lies", "no-box", "val"),
    (lambda w: w.files["labeled"]["annotations"].clear(), "fails", "no-box", "labeled"),
    (lambda w: box(w, "labeled", [1, 1, 9]), "fails", "malformed-box", "labeled"),
    (lambda w: box(w, "labeled", [1, 1, NAN, 9]), "fails", "not-finite-box", "labeled"),
    (lambda w: box(w, "val", [1, INF, 9, 9]), "lies", "not-finite-box", "val"),
    (lambda w: box(w, "labeled", [30, 1, -9, 9]), "hurts", "negative-box", "labeled"),
    (lambda w: box(w, "val", [30, 1, 9, -9]), "lies", "negative-box", "val"),
    (lambda w: box(w, "labeled", [3, 1, 0, 9]), "hurts", "zero-area-box", "labeled"),
    (lambda w: box(w, "test", [3, 1, 9, 0.5]), "lies", "zero-area-box", "test"),
    (lambda w: box(w, "val", [3, 1, 9, 9], area=0), "lies", "zero-area-box", "val"),
    (lambda w: as_corners(w, "labeled"), "lies", "corner-boxes", "labeled"),
    (lambda w: box(w, "labeled", [80, 1, 90, 9]), "hurts", "outside-box", "labeled"),
    (lambda w: box(w, "val", [-5, 1, 9, 9]), "hurts", "outside-box", "val"),
    (lambda w: copy_box(w, "labeled"), "hurts", "duplicate-box", "labeled"),
    (lambda w: shutil.rmtree(w.folder / "val"), "fails", "image-folder-missing", "val"),
    (lambda w: w.image("unlabeled", 2).unlink(), "fails", "missing-image", "unlabeled"),
    (lambda w: w.image("unlabeled").write_text("no image"), "fails", "unreadable-image", "unlabeled"),
    (lambda w: w.image("val").write_bytes(b""), "fails", "unreadable-image", "val"),
    (lambda w: cut(w.image("labeled")), "fails", "unreadable-image", "labeled"),
    (lambda w: w.files["val"]["images"][0].update(width=97), "lies", "wrong-image-size", "val"),
    (turn, "lies", "wrong-image-size", "val"),
    (all_landscape, "note", "orientation-without-labels", "unlabeled"),
    (lambda w: move_image(w, "labeled", "val"), "lies", "leak-into-evaluation", "labeled"),
    (lambda w: move_image(w, "unlabeled", "test"), "lies", "leak-into-evaluation", "test"),
    (lambda w: share_file(w, "val", "labeled"), "lies", "leak-into-evaluation", "val"),
    (lambda w: move_image(w, "labeled", "unlabeled"), "hurts", "leak-between-sources", "unlabeled"),
    (lambda w: share_file(w, "unlabeled", "labeled"), "hurts", "leak-between-sources", "labeled"),
    (lambda w: move_image(w, "val", "test"), "hurts", "leak-between-val-and-test", "val"),
    (
        lambda w: w.dataset("unlabeled").update(filter_cfg=dict(min_size=500)),
        "fails",
        "dataset-refused",
        "unlabeled",
    ),
]


def found(world: World, **options: Any) -> list[Any]:
    """All findings about the data, without facts."""
    from mmengine.config import Config

    from ssod.data.doctor import examine_data, read_parts

    world.save()
    parts, findings = read_parts(Config(world.config))
    return [one for one in [*findings, *examine_data(parts, **options)] if one.severity != "fact"]


def test_nothing_is_found_in_healthy_data(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert found(world, near=True, decode_all=True) == []


@pytest.mark.parametrize(
    ("break_it", "severity", "code", "part"), FAULTS, ids=[f"{row[2]}-{row[3]}" for row in FAULTS]
)
def test_exactly_the_planted_fault_is_found(
    break_it: Callable[[World], Any], severity: str, code: str, part: str, tmp_path: Path
) -> None:
    world = World(tmp_path)
    break_it(world)
    findings = found(world)
    assert [(one.severity, one.code) for one in findings] == [(severity, code)]
    assert part in findings[0].where and findings[0].mend


def test_many_faults_are_found_in_one_go(tmp_path: Path) -> None:
    world = World(tmp_path)
    box(world, "labeled", [3, 1, 0, 9])
    world.image("unlabeled").unlink()
    copy_box(world, "val", bbox=[1, 2, NAN, 3])
    move_image(world, "labeled", "test")
    codes = {one.code for one in found(world)}
    assert codes == {"zero-area-box", "missing-image", "not-finite-box", "leak-into-evaluation"}


def test_damage_outside_of_the_sample_takes_decode_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssod.data.checkup import images

    monkeypatch.setattr(images, "DECODED", 2)
    world = World(tmp_path)
    cut(world.image("unlabeled", 1))  # the sample is the first and the last
    assert found(world) == []
    assert [one.code for one in found(world, decode_all=True)] == ["unreadable-image"]


def test_headers_beyond_the_bound_are_left_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssod.data.checkup import images

    monkeypatch.setattr(images, "MAX_HEADERS", 2)
    world = World(tmp_path)
    world.image("unlabeled", 1).unlink()
    assert found(world) == []
    assert [one.code for one in found(world, decode_all=True)] == ["missing-image"]


def test_recompressed_images_are_near_duplicates_on_demand(tmp_path: Path) -> None:
    world = World(tmp_path)
    image = cv2.imread(str(world.image("unlabeled")))
    cv2.imwrite(str(world.image("val")), image)  # other bytes, as the name is another format
    record = world.files["val"]["images"][0]
    record["file_name"] = "again.jpg"
    cv2.imwrite(str(world.folder / "val" / "again.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert found(world) == []
    [finding] = found(world, near=True)
    assert (finding.severity, finding.code) == ("hurts", "near-duplicate")
    assert finding.values["pairs"] == [[str(world.image("unlabeled")), str(world.image("val"))]]


def test_counts_and_histogram(tmp_path: Path) -> None:
    from mmengine.config import Config

    from ssod.data.doctor import examine_data, read_parts

    world = World(tmp_path)
    without_class(world, "val", 2, 5)
    world.save()
    facts = {one.code: one.values for one in examine_data(read_parts(Config(world.config))[0])}
    assert facts["counts"]["labeled"] == {"images": 4, "boxes": 48}
    assert facts["counts"]["unlabeled"] == {"images": 4}
    assert facts["class-histogram"] == {
        "bolt": {"labeled": 24, "val": 18, "test": 12},
        "nut": {"labeled": 24, "val": 5, "test": 12},
    }


def test_bccds_known_near_duplicate(data_root: Path) -> None:
    """Its README names one pair of training and validation: 00037 and 00038."""
    from ssod.data.checkup.same_images import hashes, nearly_same, same_content

    folder = data_root / "bccd"
    paths = {}
    for name in ("train", "val"):
        images = json.loads((folder / f"{name}.json").read_text())["images"]
        paths[name] = [str(folder / "images" / one["file_name"]) for one in images]
    assert same_content(paths) == {}
    near = [hashes([path for path in paths[name] if "0003" in path]) for name in ("train", "val")]
    names = [[Path(path).stem for path in pair] for pair in nearly_same(*near)]
    assert names == [["BloodImage_00038", "BloodImage_00037"]]


def test_the_difference_hash_is_the_textbooks(tmp_path: Path) -> None:
    """On an image of 9 x 8 flat squares: a bit for each square that is brighter than its left neighbour."""
    from ssod.data.checkup.same_images import difference_hash

    squares = np.random.default_rng(0).permutation(72).reshape(8, 9).astype(np.uint8) * 3
    path = tmp_path / "squares.png"
    cv2.imwrite(str(path), np.kron(squares, np.ones((10, 10), dtype=np.uint8)))
    bits = "".join(str(int(row[i + 1] > row[i])) for row in squares for i in range(8))
    assert difference_hash(str(path)) == int(bits, 2)
    assert difference_hash(str(tmp_path / "gone.png")) is None


@pytest.mark.parametrize("distance", [6, 7])
def test_the_bound_of_near_duplicates(distance: int) -> None:
    from ssod.data.checkup.same_images import MAX_DISTANCE, nearly_same

    assert MAX_DISTANCE == 6
    pairs = nearly_same({"a": 0, "far": 2**64 - 1}, {"b": sum(1 << (9 * bit) for bit in range(distance))})
    assert pairs == ([("a", "b")] if distance <= 6 else [])


def test_what_a_folder_leaves_out_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without an image's header are no records of the dataset; training counts them all the same."""
    from mmengine.config import Config

    from ssod.data.checkup import images
    from ssod.data.doctor import read_parts

    monkeypatch.setattr(images, "MAX_HEADERS", 1)
    world = World(tmp_path)
    sources = world.config["train_dataloader"]["dataset"]["datasets"]
    folder = str(world.folder / "unlabeled")
    sources[1] = dict(type="UnlabeledImages", images=folder, metainfo=sources[1]["metainfo"])
    assert found(world) == []
    for number in range(5):
        (world.folder / "unlabeled" / f"empty_{number}.jpg").touch()
    (world.folder / "list.txt").write_text("unlabeled/gone.png\n")
    sources[1]["images"] = [folder, str(world.folder / "list.txt")]
    missing, unreadable = found(world)
    assert (missing.code, missing.values["images"]) == ("missing-image", 1)
    assert (unreadable.code, unreadable.values["images"]) == ("unreadable-image", 5)
    assert unreadable.where == f"unlabeled: {sources[1]['images']}"
    assert "empty_0.jpg" in unreadable.what and unreadable.mend == "restore the files, or remove them"
    [part] = [part for part in read_parts(Config(world.config))[0] if part.name == "unlabeled"]
    assert (len(part.images), len(part.left_out)) == (4, 6)


class Listed:
    """A dataset without an annotation file, such as a folder of images."""

    def __init__(self, paths: list[str], pipeline: list[Any]) -> None:
        if not paths:
            raise UserError("no images: name a folder")
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def get_data_info(self, index: int) -> dict[str, Any]:
        return {"img_id": index, "img_path": self.paths[index], "width": 96, "height": 64}


def test_a_dataset_without_an_annotation_file_is_asked_for_its_images(tmp_path: Path) -> None:
    from ssod.registry import DATASETS

    DATASETS.register_module(module=Listed, force=True)
    for missing, paths, code in ((False, ["101.png", "103.png"], None), (True, ["101.png"], "missing-image")):
        world = World(tmp_path / str(missing))
        sources = world.config["train_dataloader"]["dataset"]["datasets"]
        sources[1] = dict(type="Listed", paths=[str(world.folder / "unlabeled" / each) for each in paths])
        if missing:
            world.image("unlabeled").unlink()
        assert [one.code for one in found(world)] == ([code] if code else [])
    sources[1] = dict(type="Listed", paths=[])
    [finding] = found(world)
    assert (finding.code, finding.what) == ("dataset-refused", "no images: name a folder")
