"""Sources of images, their sizes and the cache: against Pillow and the file system."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ssod.data import file_cache, image_index
from ssod.data.image_index import Records, index_images
from ssod.data.image_sources import list_images
from ssod.errors import UserError

NAMES = ("a.jpg", "b/c.png", "b/d.JPG", "e.webp")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSOD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images of different sizes; the third is stored on its side."""
    for number, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if number == 2:
            exif[0x0112] = 8
        Image.new("RGB", (40 + number, 30), (number, 0, 0)).save(path, exif=exif)
    return tmp_path / "photos"


SIZES = [(40, 30), (41, 30), (30, 42), (43, 30)]


def sizes(index: image_index.Index) -> list[tuple[int, int]]:
    return [(each["width"], each["height"]) for each in index.records]


def names(source: Any, root: Any = None) -> list[str]:
    return [Path(path).name for path in list_images(source, root).paths()]


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose header was read."""
    read: list[str] = []
    real = image_index.image_size

    def noted(path: str) -> tuple[int, int]:
        read.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(image_index, "image_size", noted)
    return read


# ---------------------------------------------------------------- sources


def test_kinds_of_sources(photos: Path, tmp_path: Path) -> None:
    assert names(photos) == ["a.jpg", "c.png", "d.JPG", "e.webp"]
    assert names(f"{photos}/**/*.[jJ]*") == ["a.jpg", "d.JPG"]
    assert names(photos / "b" / "*") == ["c.png", "d.JPG"]
    (tmp_path / "list.txt").write_text("photos/e.webp\nphotos/a.jpg\n")
    assert names(tmp_path / "list.txt") == ["a.jpg", "e.webp"]
    (tmp_path / "short.txt").write_text("e.webp\n")
    assert names(tmp_path / "short.txt", photos) == ["e.webp"]
    (tmp_path / "coco.json").write_text(json.dumps({"images": [{"id": 9, "file_name": "b/c.png"}]}))
    listing = list_images(tmp_path / "coco.json", photos)
    assert (listing.ids, listing.paths()) == ((9,), [str(photos / "b/c.png")])
    mixed = list_images([f"{photos}/*.jpg", tmp_path / "short.txt", photos], photos)
    assert [Path(path).name for path in mixed.paths()] == [
        "a.jpg",
        "e.webp",
        "a.jpg",
        "c.png",
        "d.JPG",
        "e.webp",
    ]
    assert mixed.ids == (1, 2, 3, 4, 5, 6) and all(Path(path).is_file() for path in mixed.paths())


def test_a_mixed_source_far_apart(tmp_path: Path, photos: Path) -> None:
    other = tmp_path / "elsewhere" / "deep"
    other.mkdir(parents=True)
    cv2.imwrite(str(other / "z.png"), np.zeros((8, 9, 3), np.uint8))
    (tmp_path / "list.txt").write_text(str(photos / "a.jpg"))
    listing = list_images([other, tmp_path / "list.txt"])
    assert [Path(path).resolve() for path in listing.paths()] == [other / "z.png", photos / "a.jpg"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([], "is empty"),
        ("no/*.jpg", "no image .* matches"),
        ("gone", "do not exist"),
        (["gone"], "do not exist"),
    ],
)
def test_refused_sources(source: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        list_images(source)
    assert "\n" not in str(caught.value)


def test_links_to_folders_are_followed_once(photos: Path, tmp_path: Path) -> None:
    (photos / "b" / "round").symlink_to(photos)
    far = tmp_path / "far"
    far.mkdir()
    Image.new("RGB", (5, 5)).save(far / "f.png")
    (photos / "far").symlink_to(far)
    assert sorted(names(photos)) == ["a.jpg", "c.png", "d.JPG", "e.webp", "f.png"]


# ---------------------------------------------------------------- index


def test_sizes_are_those_that_are_displayed(photos: Path, cache: Path) -> None:
    index = index_images(list_images(photos), "key")
    assert sizes(index) == SIZES and not index.left_out
    assert [each["img_id"] for each in index.records] == [1, 2, 3, 4]
    assert (
        [each["img_path"] for each in index.records]
        == index.records.paths()
        == [str(photos / name) for name in NAMES]
    )


def test_the_same_file_counts_once(photos: Path, tmp_path: Path, cache: Path) -> None:
    (photos / "link.jpg").symlink_to(photos / "a.jpg")
    os.link(photos / "e.webp", photos / "twin.webp")
    (tmp_path / "list.txt").write_text("photos/../photos/b/c.png\n")
    index = index_images(list_images([tmp_path / "list.txt", photos]), "key")
    found = [Path(path).name for path in index.records.paths()]
    assert found == ["c.png", "a.jpg", "d.JPG", "e.webp"]


def test_files_that_are_no_images_are_left_out_and_named(photos: Path, cache: Path) -> None:
    (photos / "0 empty.jpg").write_bytes(b"")
    (photos / "b" / "page.png").write_bytes(b"<html>404</html>")
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    os.mkfifo(photos / "pipe.png")
    for _ in range(2):  # the second time with a cache
        index = index_images(list_images(photos), "key")
        assert sizes(index) == SIZES
        assert [(Path(path).name, reason) for path, reason in index.left_out] == [
            ("0 empty.jpg", "empty (0 bytes)"),
            ("page.png", "not an image"),
            ("gone.jpg", "No such file or directory"),
            ("pipe.png", "not a file"),
        ]
    # Ids are places in the whole list, as tools/pseudo_label.py numbers it.
    assert [each["img_id"] for each in index.records] == [2, 3, 4, 6]


# ---------------------------------------------------------------- cache


def test_headers_are_read_once(photos: Path, cache: Path, headers: list[str]) -> None:
    listing = list_images(photos)
    assert sizes(index_images(listing, "key")) == SIZES and len(headers) == 4
    headers.clear()
    assert sizes(index_images(listing, "key")) == SIZES and headers == []
    assert index_images(listing, "another key") and len(headers) == 4


def test_what_is_new_or_changed_is_read_again(photos: Path, cache: Path, headers: list[str]) -> None:
    index_images(list_images(photos), "key")
    headers.clear()
    Image.new("RGB", (400, 300)).save(photos / "a.jpg")
    Image.new("RGB", (7, 9)).save(photos / "b" / "new.png")
    (photos / "e.webp").unlink()
    changed = [(400, 300), SIZES[1], SIZES[2], (7, 9)]
    assert sizes(index_images(list_images(photos), "key")) == changed
    assert sorted(headers) == ["a.jpg", "new.png"]
    headers.clear()
    status = (photos / "a.jpg").stat()
    os.utime(photos / "a.jpg", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert sizes(index_images(list_images(photos), "key")) == changed and headers == ["a.jpg"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "locked", "emptied", "other", "older"])
def test_a_damaged_cache_is_made_again(photos: Path, cache: Path, damage: str, headers: list[str]) -> None:
    index_images(list_images(photos), "key")
    [file] = cache.glob("sizes-*.npz")
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        place = data.index(b"photos")
        data[place] ^= 1
        file.write_bytes(data)
    elif damage == "locked":  # the archive's list asks for a password
        data[data.rindex(b"PK\x01\x02") + 8] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
        file.write_bytes(data)
    elif damage == "older":
        np.savez(file, version=np.array(0), paths=np.zeros(1, np.uint8))
    else:
        file.write_bytes(b"" if damage == "emptied" else b"PK\x03\x04 no archive")
    headers.clear()
    for expected in (4, 0):
        assert sizes(index_images(list_images(photos), "key")) == SIZES and len(headers) == expected
        headers.clear()
    assert not list(cache.glob("*.partial"))


def test_a_place_that_cannot_be_written_fails_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SSOD_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="SSOD_CACHE"):
        assert sizes(index_images(list_images(photos), "key")) == SIZES


def test_the_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSOD_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert file_cache.cache_folder() == Path("/own")
    monkeypatch.delenv("SSOD_CACHE")
    assert file_cache.cache_folder() == Path("/shared/ssod")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert file_cache.cache_folder() == Path.home() / ".cache" / "ssod"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert file_cache.cache_folder() == Path(tempfile.gettempdir()) / f"ssod-{os.getuid()}"


def test_one_process_does_the_work_for_all(photos: Path, cache: Path) -> None:
    """A second process finds the lock held, waits, and then reads no header."""
    import threading

    file = file_cache.cache_file("sizes", "key")
    done: list[Any] = []
    with file_cache.turn(file):
        waiting = threading.Thread(target=lambda: done.append(index_images(list_images(photos), "key")))
        waiting.start()
        waiting.join(0.3)
        assert not done
    waiting.join(20)
    assert sizes(done[0]) == SIZES


# ---------------------------------------------------------------- records


def test_records_are_a_sequence() -> None:
    paths = ["a.jpg", "é/b.jpg", os.fsdecode(b"\xff.jpg")]
    records = Records(paths, [3, 5, 9], np.array([(2, 1), (3, 4), (5, 6)]))
    assert [each["img_path"] for each in records] == records.paths() == paths
    assert records[-1] == dict(img_path=paths[2], img_id=9, height=6, width=5)
    assert [each["img_id"] for each in records[1:]] == [5, 9] and len(records[:0]) == 0
    assert records.take(np.array([2, 0])).paths() == [paths[2], paths[0]]
    assert list(records.take(np.array([-1, -3]))) == [records[2], records[0]]
    with pytest.raises(IndexError):
        records[3]
    assert Records(["a"], ["x7"], np.array([(1, 1)]))[0]["img_id"] == "x7"
