"""What is drawn in a bad image's place: of its source and shape, always the same, named, read once."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from ssod.data import decode, pipelines, transforms
from ssod.data.bad_images import ReplaceBadImages, notes_of
from ssod.data.draws import seeded
from ssod.data.transforms import collate_views
from ssod.errors import BadImageError, UserError

pytestmark = pytest.mark.usefixtures("registered")

COUNT = 24


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders of images, every other one standing; three of the second are damaged past their header."""
    monkeypatch.setenv("SSOD_CACHE", str(tmp_path / "cache"))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for number in range(COUNT):
            size = (60, 80, 3) if number % 2 else (80, 60, 3)
            noise = np.random.default_rng(number).integers(0, 255, size, dtype=np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{number:02d}.jpg"), noise)
    for number in (3, 4, 11):
        path = tmp_path / "second" / f"{number:02d}.jpg"
        path.write_bytes(path.read_bytes()[:3000])
    return tmp_path / "first", tmp_path / "second"


def build(*folders: Path, kind: str = "ReplaceBadImages") -> Any:
    from ssod.registry import DATASETS

    init_default_scope("ssod")
    views = pipelines.two_views(pipelines.weak(None, 0.0), pipelines.strong(None, 0.0, False, False, False))
    parts = [dict(type="UnlabeledImages", images=str(each), pipeline=views) for each in folders]
    whole = dict(type="ConcatDataset", datasets=parts)
    return DATASETS.build(dict(type=kind, dataset=whole) if kind != "ConcatDataset" else whole)


def shown(item: Any) -> str:
    """The path of the image that an item shows."""
    return str(item["weak"]["data_samples"].img_path)


def test_replaced_by_one_of_the_same_source_and_orientation(folders: tuple[Path, Path]) -> None:
    dataset, plain = build(*folders), build(*folders, kind="ConcatDataset")
    assert len(dataset) == len(plain) == 2 * COUNT and len(dataset.datasets) == 2
    bad = [COUNT + number for number in (3, 4, 11)]
    for index in range(len(dataset)):
        item = dataset[index]
        if index not in bad:
            assert shown(item) == plain.get_data_info(index)["img_path"] and not notes_of(
                collate_views([item])
            )
            continue
        with pytest.raises(UserError, match="truncated"):
            plain[index]
        [[note]] = notes_of(collate_views([item]))
        assert note == (1, plain.get_data_info(index)["img_path"], "truncated or damaged")
        assert Path(shown(item)).parent == folders[1]
        standing = index % 2 == 0
        assert (item["weak"]["inputs"].shape[1] > item["weak"]["inputs"].shape[2]) == standing


def test_the_choice_is_a_function_of_the_index(folders: tuple[Path, Path]) -> None:
    """Whatever was read before, in whichever order, by however many workers."""
    order = list(range(2 * COUNT))
    expected = {index: shown(build(*folders)[index]) for index in (27, 28, 35)}
    dataset = build(*folders)
    for index in reversed(order):
        item = dataset[index]
        assert shown(item) == expected.get(index, shown(item))
    for workers in (0, 2):
        loader = DataLoader(
            build(*folders),
            batch_size=5,
            num_workers=workers,
            collate_fn=collate_views,
            sampler=order,
            timeout=0,
        )
        batches = list(loader)
        paths = [sample.img_path for batch in batches for sample in batch["weak"]["data_samples"]]
        assert {index: paths[index] for index in expected} == expected
        notes = [note for batch in batches for notes in notes_of(batch) for note in notes]
        assert {Path(note.path).name for note in notes} == {"03.jpg", "04.jpg", "11.jpg"}
        assert sum(len(notes_of(batch)) for batch in batches) == 3  # counted once, not for each view
    assert np.array_equal(dataset[27]["weak"]["inputs"], dataset[27]["weak"]["inputs"])


def test_a_bad_file_is_read_once(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(
        transforms, "read_image", lambda path: calls.append(Path(path).name) or decode.read_image(path)
    )
    dataset = build(*folders)
    for _ in range(3):
        dataset[COUNT + 3]
    assert calls.count("03.jpg") == 1 and len(calls) >= 4


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of which one is resized to nothing."""
    monkeypatch.setenv("SSOD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for number, size in enumerate([(60, 80, 3), (1, 3000, 3), (60, 90, 3)]):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), np.full(size, 99, np.uint8))
    return tmp_path / "images"


def resized(folder: Path, kind: str) -> Any:
    """The folder's images at a drawn scale."""
    from ssod.registry import DATASETS

    init_default_scope("ssod")
    scale = [(1333, 480), (1333, 800)]
    views = pipelines.two_views(pipelines.weak(scale), pipelines.strong(scale))
    images = dict(type="UnlabeledImages", images=str(folder), pipeline=views)
    return DATASETS.build(dict(type=kind, dataset=dict(type="ConcatDataset", datasets=[images])))


def test_an_image_that_a_resize_leaves_nothing_of_is_a_bad_one(narrow: Path) -> None:
    said = "too narrow for its scale, 3000 x 1 px"
    dataset = resized(narrow, "ReplaceBadImages")
    item = dataset[1]
    assert notes_of(collate_views([item])) == [[(0, str(narrow / "1.png"), said)]]
    assert not dataset._known, "at a larger scale it might do, whichever worker has it"
    with pytest.raises(BadImageError, match=rf"1\.png is {said}: leave it out") as caught:
        resized(narrow, "SeededDraws")[1]
    assert caught.value.reason == said and "\n" not in caught.value.one_line


def test_another_error_of_opencv_stays_what_it_is(narrow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        return cv2.cvtColor(np.zeros((2, 2), np.uint8), cv2.COLOR_BGR2HSV)

    for kind in ("ReplaceBadImages", "SeededDraws"):
        dataset = resized(narrow, kind)
        monkeypatch.setattr(type(dataset.dataset), "__getitem__", broken)
        with pytest.raises(cv2.error):
            dataset[0]


def test_no_random_number_of_the_views_is_used_up(folders: tuple[Path, Path]) -> None:
    """The generators are afterwards where the drawn image alone would have left them."""
    dataset = build(*folders)
    np.random.seed(0)
    path = shown(dataset[COUNT + 3])
    after = np.random.random()
    np.random.seed(0)
    drawn = next(i for i in range(COUNT, 2 * COUNT) if dataset.get_data_info(i)["img_path"] == path)
    assert shown(dataset[drawn]) == path and np.random.random() == after


def test_what_comes_instead_does_not_depend_on_what_was_read_before(folders: tuple[Path, Path]) -> None:
    """Reduced decoding draws its scales before it reads; a file that is known to be bad is not read again."""
    from ssod.registry import DATASETS

    init_default_scope("ssod")
    scale = [(200, 20), (200, 60)]
    views = pipelines.two_views(pipelines.weak(scale), pipelines.strong(scale), reduced_decoding=True)
    images = dict(type="UnlabeledImages", images=str(folders[1]), pipeline=views)
    dataset = DATASETS.build(
        dict(type="ReplaceBadImages", dataset=dict(type="ConcatDataset", datasets=[images]))
    )
    items = []
    for _ in range(2):
        with seeded((3, 5)):
            items.append(dataset[4])
    assert notes_of(collate_views([items[1]])) and shown(items[0]) == shown(items[1])
    for view in ("weak", "strong"):
        assert torch.equal(items[0][view]["inputs"], items[1][view]["inputs"])


def test_a_source_of_bad_images_alone_ends_with_one_line(folders: tuple[Path, Path]) -> None:
    for path in folders[1].iterdir():
        path.write_bytes(path.read_bytes()[:3000])
    loader = DataLoader(build(*folders), num_workers=1, collate_fn=collate_views, sampler=[COUNT + 5])
    with pytest.raises(UserError) as caught:
        list(loader)
    assert "nor can 23 others of dataset 1" in caught.value.one_line and "05.jpg" in caught.value.one_line


def test_items_that_cannot_say_so_are_refused(folders: tuple[Path, Path]) -> None:
    part = dict(type="UnlabeledImages", images=str(folders[1]), pipeline=[dict(type="LoadImage")])
    dataset = ReplaceBadImages(part)
    assert dataset[0]["img"].shape == (80, 60, 3)
    with pytest.raises(UserError, match="end the pipeline with PackView"):
        dataset[3]
