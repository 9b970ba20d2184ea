"""tools/show_views.py: which views are shown, boxes where the pixels are, one line for bad input."""

import json
import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from ssod.data import pipelines
from ssod.data.shapes import CLASSES, draw_dataset

pytestmark = pytest.mark.usefixtures("registered")
main = runpy.run_path(str(Path(__file__).parents[3] / "tools/show_views.py"))["main"]
HEIGHT = 320 + 6  # of a row: a view and the gap below


@pytest.fixture(scope="module")
def make_config(tmp_path_factory: Any, registered: None) -> Any:
    """Function: a config of drawn images, for the method "SoftTeacher", "STAC" or None."""
    root = tmp_path_factory.mktemp("show")
    draw_dataset(root / "shapes", num_train=10, num_val=1, num_labeled=4)
    place = dict(
        data_root=str(root / "shapes"), data_prefix=dict(img="train/"), metainfo=dict(classes=CLASSES)
    )
    labeled = dict(
        type="LabeledCoco",
        ann_file="annotations/train_labeled.json",
        pipeline=pipelines.labeled((96, 96), flip_prob=1.0, color=False),
        **place,
    )
    two = pipelines.two_views(
        pipelines.weak((96, 96), 0.0),
        pipelines.strong((96, 96), 0.0, color=False, geometric=False, erase=False,
                         extra=[dict(type="VerticalFlip", p=1)]),
    )  # fmt: skip
    unlabeled = dict(type="UnlabeledCoco", ann_file="annotations/train_unlabeled.json", pipeline=two, **place)
    (root / "pseudo.json").write_text((root / "shapes/annotations/train_unlabeled_truth.json").read_text())

    def make(method: str | None, model: Any = None) -> Path:
        sources = [labeled, unlabeled]
        if method == "STAC":
            truth = json.loads((root / "pseudo.json").read_text())
            for annotation in truth["annotations"]:
                annotation["score"] = 0.95
            (root / "pseudo.json").write_text(json.dumps(truth))
            sources[1] = {**pipelines.pseudo_labeled(unlabeled), "labels": str(root / "pseudo.json")}
        joined = sources[0] if method is None else dict(type="ConcatDataset", datasets=sources)
        loader = dict(
            batch_size=2,
            sampler=dict(type="LabeledUnlabeledSampler", counts=(2,) if method is None else (1, 1)),
            collate_fn=dict(type="ssod.collate_views"),
            dataset=joined,
        )
        path = root / f"{method}.py"
        parts = dict(
            model=model or dict(type="ToyModel"),
            train_dataloader=loader,
            train_cfg=dict(max_iters=1),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        )
        Config(parts).dump(path)
        return path

    return make


def shown(make_config: Any, out: Path, method: str | None, **options: Any) -> np.ndarray:
    from ssod.engine.commands.show_views import show_views

    (path,) = show_views(make_config(method), out, **options)
    picture = cv2.imread(str(path))
    assert path == out / "views.jpg" and picture is not None
    return picture


def test_a_row_shows_the_image_and_its_views(make_config: Any, tmp_path: Path) -> None:
    """The strong view is upside down and the labeled one mirrored, and so are their boxes."""
    picture = shown(make_config, tmp_path / "out", "SoftTeacher", num_images=2)
    assert picture.shape[0] == 2 * HEIGHT
    one = shown(make_config, tmp_path / "one", "SoftTeacher", num_images=1)
    gaps = np.flatnonzero(one[:320].mean(axis=(0, 2)) > 245)  # JPEG
    columns = np.split(gaps, np.flatnonzero(np.diff(gaps) > 1) + 1)
    assert len(columns) == 4, "image, labeled, weak, strong"
    begins = [0, *(int(each[-1]) + 1 for each in columns[:3])]
    ends = [int(each[0]) for each in columns]
    _, labeled, weak, strong = (one[:320, a:b].astype(float) for a, b in zip(begins, ends, strict=True))
    width = min(labeled.shape[1], weak.shape[1])

    def lines(view: np.ndarray) -> np.ndarray:
        """Where the boxes are drawn; titles and names at other places don't matter."""
        green = (view[..., 1] > 170) & (view[..., 0] < 110) & (view[..., 2] < 110)
        return cv2.dilate(green.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0

    def overlap(first: np.ndarray, second: np.ndarray) -> float:
        both = [lines(each[:, :width]) for each in (first, second)]
        return float((both[0] & both[1]).sum() / (both[0] | both[1]).sum())

    assert overlap(strong[::-1], weak) > 0.6 > 0.45 > overlap(strong, weak)
    assert overlap(labeled[:, :width][:, ::-1], weak) > 0.6 > 0.45 > overlap(labeled, weak)


def test_offline_methods_have_no_weak_view_and_supervised_ones_none(make_config: Any, tmp_path: Path) -> None:
    widths = {m: shown(make_config, tmp_path / str(m), m, num_images=1).shape[1]
              for m in ("SoftTeacher", "STAC", None)}  # fmt: skip
    assert widths["SoftTeacher"] > widths["STAC"] > widths[None]


def test_first_and_draw_choose_image_and_draw(make_config: Any, tmp_path: Path) -> None:
    base = shown(make_config, tmp_path / "a", "SoftTeacher", num_images=1)
    again = shown(make_config, tmp_path / "b", "SoftTeacher", num_images=1)
    other = shown(make_config, tmp_path / "c", "SoftTeacher", num_images=1, first=1)
    assert np.array_equal(base, again)
    assert base.shape != other.shape or not np.array_equal(base, other)
    color = {"train_dataloader.dataset.pipeline": pipelines.labeled((96, 96), 0.0)}
    drawn = [shown(make_config, tmp_path / f"{draw}", None, num_images=1, draw=draw, options=color)
             for draw in range(4)]  # fmt: skip
    assert any(not np.array_equal(drawn[0], each) for each in drawn[1:])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "0"], "one image"),
        (["--images", "201"], "one image, at most 200"),
        (["--first", "9"], "there are 4 labeled images"),
        (["--checkpoint", "gone.pth"], "checkpoint gone.pth does not exist"),
        (["--cfg-options", "train_dataloader.dataset.datasets.0.ann_file=gone.json"], "gone.json"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    make_config: Any, tmp_path: Path, words: list[str], message: str, capsys: Any
) -> None:
    out = tmp_path / "out"
    assert main([str(make_config("SoftTeacher")), "--out", str(out), *words]) == 2
    complained = capsys.readouterr().err
    assert message in complained and complained.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize("wrong", ["f", "f/sub"])
def test_an_output_that_cant_be_made_is_one_line(
    make_config: Any, tmp_path: Path, wrong: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssod.engine.commands.show_views._row", None)  # before anything is drawn
    (tmp_path / "f").write_text("mine")
    assert main([str(make_config(None)), "--out", str(tmp_path / wrong)]) == 2
    complained = capsys.readouterr().err
    assert "can't be a folder" in complained and complained.count("\n") == 1


def test_what_is_not_written_is_not_said_to_be(
    make_config: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in the place of the picture, and a picture larger than a JPEG can be."""
    words = [str(make_config(None)), "--images", "1", "--out"]
    (tmp_path / "a/views.jpg").mkdir(parents=True)
    assert main([*words, str(tmp_path / "a")]) == 2
    printed = capsys.readouterr()
    assert "views.jpg is a folder: name another --out" in printed.err and not printed.out
    monkeypatch.setattr("ssod.engine.records.pictures.MOST_SIDE", 500)
    assert main([*words, str(tmp_path / "b")]) == 2
    printed = capsys.readouterr()
    assert "a JPEG has at most 500 on a side" in printed.err and not printed.out
    assert not list((tmp_path / "b").iterdir())


def test_a_checkpoint_adds_the_teachers_boxes(make_config: Any, tmp_path: Path, capsys: Any) -> None:
    from reference import small_run

    method = dict(type="SoftTeacher", floor=0.3)
    model = {**small_run.model_config(), "method": method}
    config = make_config("SoftTeacher", model=model)
    checkpoint = small_run.write_checkpoint(tmp_path / "some.pth", small_run.build())
    out = tmp_path / "out"
    assert main([str(config), "--out", str(out), "--checkpoint", str(checkpoint), "--images", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == ["wrote", f"{out}/views.jpg", "wrote", f"{out}/pseudo_labels.jpg"]
    assert printed.err == ""
    picture = cv2.imread(str(out / "pseudo_labels.jpg"))
    assert picture.shape[0] == 2 * HEIGHT + 26, "two images and a legend"
    teacher = np.abs(picture[:-26].astype(int) - np.array((60, 200, 60))).max(axis=-1) < 30
    assert teacher[:, : picture.shape[1] // 2].sum() > 100, "boxes of the teacher, on the weak views"
    supervised = make_config(None, model=model)
    assert main([str(supervised), "--out", str(out), "--checkpoint", str(checkpoint)]) == 2
    assert "labels no images" in capsys.readouterr().err
