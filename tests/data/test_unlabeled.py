"""Unlabeled images from a folder, a list and a COCO file: which, in which order, and what is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ssod.data.unlabeled import ImageFile, images_of, read_images, split_hash
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
    (lambda root: file(root, "a.csv", "x"), "give a folder, a .txt list or a COCO .json file"),
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
