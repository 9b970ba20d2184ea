"""Unlabeled images from a folder, a list and a COCO file: which, in which order, and what is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope

from ssod.data.sampler import LabeledUnlabeledSampler
from ssod.data.unlabeled import ImageFile, UnlabeledImages, images_of, read_images, split_hash
from ssod.errors import UserError

NAMES = ["b.jpg", "a/2.PNG", "a/10.png", "c.webp"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images, and files that are none."""
    for name in [*NAMES, "notes.md", ".hidden.jpg", ".cache/x.jpg", "a/3.json"]:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened here")
    return tmp_path / "photos"


def names(images: Any) -> list[str]:
    return [image.file_name for image in images.images]


def test_a_folder_with_its_folders_in_the_order_of_names(folder: Path) -> None:
    found = read_images(folder)
    assert names(found) == sorted(NAMES) == ["a/10.png", "a/2.PNG", "b.jpg", "c.webp"]
    assert [image.id for image in found.images] == [1, 2, 3, 4]
    assert all(Path(image.path).is_file() for image in found.images) and found.categories == ()


def test_a_list_in_any_order(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(["photos/c.webp", "", "  photos/b.jpg ", str(folder / "a/2.PNG")]))
    found = read_images(path)
    assert names(found) == sorted(["photos/c.webp", "photos/b.jpg", str(folder / "a/2.PNG")])
    assert all(Path(image.path).is_file() for image in found.images)
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    assert read_images(path) == found
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")  # as some editors begin a file
    assert read_images(path) == found
    path.write_text("c.webp\n")
    assert read_images(path, root=folder).images[0].path == str(folder / "c.webp")


def coco(folder: Path, **changes: Any) -> Path:
    images = [{"id": 7 - i, "file_name": name} for i, name in enumerate(NAMES)]
    path = folder / "images.json"
    path.write_text(json.dumps({"images": images, "categories": [{"id": 3, "name": "cat"}], **changes}))
    return path


def test_a_coco_file_keeps_its_ids(folder: Path) -> None:
    found = read_images(coco(folder, annotations="never read"))
    assert [(image.id, image.file_name) for image in found.images] == sorted(
        ((7 - i, name) for i, name in enumerate(NAMES)), key=lambda pair: pair[1]
    )
    assert found.categories == ({"id": 3, "name": "cat"},)


def test_the_hash_is_of_ids_and_names_alone(folder: Path) -> None:
    images = (ImageFile(2, "b.jpg", "here/b.jpg"), ImageFile(10, "a.jpg", "here/a.jpg"))
    assert split_hash(images) == hashlib.sha256(b"10\ta.jpg\n2\tb.jpg").hexdigest()
    assert split_hash(reversed(images)) == split_hash(images)
    moved = (ImageFile(2, "b.jpg", "there/b.jpg"), images[1])
    assert split_hash(moved) == split_hash(images)
    assert split_hash((ImageFile(3, "b.jpg", "here/b.jpg"), images[1])) != split_hash(images)


def test_images_of_a_dataset() -> None:
    class Records:
        data_prefix = {"img": "root/train"}  # noqa: RUF012

        def __len__(self) -> int:
            return 2

        def get_data_info(self, index: int) -> dict[str, Any]:
            return {"img_id": 5 - index, "img_path": f"root/train/{'ba'[index]}.jpg", "instances": "truth"}

    expected = (ImageFile(4, "a.jpg", "root/train/a.jpg"), ImageFile(5, "b.jpg", "root/train/b.jpg"))
    assert images_of(Records()).images == expected


def empty_folder(root: Path) -> Path:
    (root / "empty").mkdir()
    return root / "empty"


def file(root: Path, name: str, text: str | bytes) -> Path:
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


REFUSED = [
    (lambda root: root / "gone", "do not exist"),
    (empty_folder, "holds no image"),
    (lambda root: file(root, "a.csv", "x"), "give a folder, a .txt list, a COCO .json file or a glob"),
    (lambda root: file(root, "a.txt", "\n \n"), "names no image"),
    (lambda root: file(root, "a.txt", b"\xff\xfe"), "UTF-8"),
    (lambda root: file(root, "a.txt", "x.jpg\ny.jpg\nx.jpg"), "x.jpg twice"),
    (lambda root: file(root, "a.json", "{"), "not valid JSON"),
    (lambda root: file(root, "a.json", "{}"), "no list 'images'"),
    (lambda root: file(root, "a.json", '{"images": []}'), "has no images"),
    (lambda root: file(root, "a.json", '{"images": [{"id": 1}]}'), "has no file_name"),
    (lambda root: file(root, "a.json", '{"images": [{"id": 1, "file_name": "x.jpg"}]}'), "--image-root"),
]


@pytest.mark.parametrize(("make", "said"), REFUSED, ids=[row[1] for row in REFUSED])
def test_refused_in_one_line(tmp_path: Path, make: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read_images(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_needs_no_root(folder: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        read_images(folder, root=folder)


# ---------------------------------------------------------------- the dataset


@pytest.fixture
def photos(registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten images, every third one standing, of sides from 30 to 39 px."""
    init_default_scope("ssod")
    monkeypatch.setenv("SSOD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data" / "photos" / "more").mkdir(parents=True)
    for number in range(10):
        size = (50, 30 + number, 3) if number % 3 == 0 else (30 + number, 50, 3)
        name = f"more/{number}.png" if number < 4 else f"{number}.png"
        cv2.imwrite(str(tmp_path / "data" / "photos" / name), np.full(size, number, np.uint8))
    return tmp_path / "data" / "photos"


def test_ids_and_names_are_those_of_the_labeling_tool(photos: Path, tmp_path: Path) -> None:
    """So labels that tools/pseudo_label.py wrote for a source fit a dataset of the same source."""
    (tmp_path / "list.txt").write_text("data/photos/9.png\ndata/photos/more/2.png")
    listed = [{"id": 70 - i, "file_name": f"{i}.png"} for i in (5, 7, 9)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": listed}))
    for source, root in ((photos, None), (tmp_path / "list.txt", None), (tmp_path / "coco.json", photos)):
        dataset = UnlabeledImages(str(source), data_prefix=None if root is None else {"img": str(root)})
        labeled = read_images(source, root)
        assert images_of(dataset).images == labeled.images
        assert split_hash(images_of(dataset).images) == split_hash(labeled.images)


def test_records_and_items(photos: Path) -> None:
    dataset = UnlabeledImages("photos", data_root=str(photos.parent), pipeline=[dict(type="LoadImage")])
    assert len(dataset) == 10
    for index in range(10):
        info = dataset.get_data_info(index)
        assert set(info) == {"img_path", "img_id", "height", "width", "sample_idx"}
        assert (info["sample_idx"], info["img_id"]) == (index, index + 1)
        image = cv2.imread(info["img_path"])
        assert (info["height"], info["width"]) == image.shape[:2]
        assert np.array_equal(dataset[index]["img"], image)


def test_options(photos: Path) -> None:
    def paths(**options: Any) -> list[str]:
        dataset = UnlabeledImages(str(photos), **options)
        return [Path(dataset.get_data_info(i)["img_path"]).stem for i in range(len(dataset))]

    everything = ["4", "5", "6", "7", "8", "9", "0", "1", "2", "3"]
    assert paths() == everything
    assert paths(filter_cfg=dict(min_size=35)) == [each for each in everything if int(each) >= 5]
    assert paths(only_ids=[10, 1]) == ["4", "3"]
    assert paths(except_ids=[10, 1]) == everything[1:-1]
    assert paths(indices=3) == everything[:3] and paths(indices=-2) == everything[-2:]
    assert paths(indices=[4, 0]) == ["8", "4"] and paths(indices=[-1, 0]) == ["3", "4"]
    assert paths(lazy_init=True) == everything
    assert UnlabeledImages(str(photos), metainfo=dict(classes=("a",))).metainfo["classes"] == ("a",)


def test_sources_are_mixed_and_counted_once(photos: Path) -> None:
    dataset = UnlabeledImages(["photos/more", "photos", "photos/*.png"], data_root=str(photos.parent))
    assert [dataset.get_data_info(i)["img_id"] for i in range(10)] == [1, 2, 3, 4, *range(5, 11)]
    names = [image.file_name for image in images_of(dataset).images]
    assert names == sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))


def test_the_hash_tells_folders_apart(photos: Path) -> None:
    """Ids are 1, 2, ... in any folder: processes that agree on them alone would not have agreed."""
    whole = UnlabeledImages(str(photos)).part_sha256
    assert UnlabeledImages(f"{photos}/../photos").part_sha256 == whole
    assert UnlabeledImages(str(photos), only_ids=[1, 2]).part_sha256 != whole
    (photos / "9.png").rename(photos / "99.png")
    assert UnlabeledImages(str(photos)).part_sha256 != whole


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(only_ids=[11]), r"only_ids has ids \(11\) that are no images of .*photos"),
        (dict(only_ids=[1], except_ids=[2]), "both given"),
        (dict(filter_cfg=dict(min_size=1000)), "no unlabeled image is left of 10"),
        (dict(images="gone"), "do not exist"),
    ],
)
def test_refused_datasets(photos: Path, options: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        UnlabeledImages(**{"images": str(photos), **options})


def test_a_folder_without_one_image_is_refused(photos: Path) -> None:
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 10 images .* the first: .*4\.png \(empty"):
        UnlabeledImages(str(photos))


def test_the_sampler_groups_by_orientation(photos: Path) -> None:
    dataset = UnlabeledImages(str(photos))
    sampler = LabeledUnlabeledSampler(dataset, counts=(2,), seed=0, rank=0, world_size=1)
    cells = [cell.tolist() for cell in sampler._layout[0][1]]
    standing = [
        i for i in range(10) if dataset.get_data_info(i)["width"] < dataset.get_data_info(i)["height"]
    ]
    assert cells == [[i for i in range(10) if i not in standing], standing] and len(standing) == 4
