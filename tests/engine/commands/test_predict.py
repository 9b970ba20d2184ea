"""tools/predict.py: mmdet's own boxes, pictures under the images' names, nothing lost or overwritten."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from reference import small_run

from ssod.data.unlabeled import ImageFile
from ssod.engine.commands import predict
from ssod.engine.offline import labeling
from ssod.engine.records import box_pictures

pytestmark = pytest.mark.usefixtures("registered")
TOOL = Path(__file__).parents[3] / "tools/predict.py"


@pytest.fixture(scope="module")
def place(registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `config.py`, `model.pth`, `plain.*` (no teacher), and `images/` in two folders."""
    root = tmp_path_factory.mktemp("predict")
    small_run.write_images(root / "images")
    (root / "images/more").mkdir()
    for name in ("5.png", "6.png"):
        (root / "images" / name).rename(root / "images/more" / name)
    shutil.copy(root / "images/0.png", root / "images/more/0.png")
    cv2.imwrite(str(root / "images/0.jpg"), cv2.imread(str(root / "images/1.png")))
    small_run.write_trained(root)
    return root


def run(place: Path, out: Path, *more: Any, images: Any = None, config: str = "config", **files: Any) -> int:
    """The exit code; boxes of at least 0.5, in batches of two."""
    checkpoint = files.get("checkpoint", place / "model.pth")
    words = [place / f"{config}.py", checkpoint, images or place / "images", "--out", out]
    more = more if "--min-score" in more else ("--min-score", "0.5", *more)
    code: int = runpy.run_path(str(TOOL))["main"]([str(word) for word in (*words, *more)])
    return code


def content(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "predictions.json").read_text())
    return found


def pictures(out: Path) -> dict[str, bytes]:
    files = [path for path in (out / "pictures").rglob("*") if path.is_file()]
    return {path.relative_to(out / "pictures").as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """The folder of a call that nothing interrupted."""
    assert run(place, place / "whole") == 0
    return place / "whole"


NAMES = ["0.jpg", "0.png", "1.png", "2.png", "3.png", "4.png", "more/0.png", "more/5.png", "more/6.png"]


# ---------------------------------------------------------------- what is written


def test_boxes_are_to_the_bit_those_of_mmdets_own_detector(place: Path, whole: Path, tmp_path: Path) -> None:
    from mmdet.registry import MODELS
    from mmengine.dataset import Compose, pseudo_collate

    from ssod.engine.offline.provenance import labeling_pipeline

    assert run(place, tmp_path / "one", "--batch-size", "1", "--no-pictures") == 0
    config = Config.fromfile(place / "config.py")
    detector = MODELS.build(config.model.detector).eval()
    state = torch.load(place / "model.pth", weights_only=True)["state_dict"]
    teacher = {key: value for key, value in state.items() if key.startswith("teacher.")}
    detector.load_state_dict({key.removeprefix("teacher."): value for key, value in teacher.items()})
    preprocessor = MODELS.build({**config.model.data_preprocessor, "type": "DetDataPreprocessor"})
    pipeline = Compose(labeling_pipeline(config))
    found = content(tmp_path / "one")
    assert [image["file_name"] for image in found["images"]] == NAMES
    count = 0
    for image in found["images"]:
        item = pipeline({"img_path": str(place / "images" / image["file_name"]), "img_id": 0})
        data = preprocessor(pseudo_collate([item]), False)
        with torch.no_grad():
            own = detector.predict(data["inputs"], data["data_samples"])[0].pred_instances
        own = own[own.scores >= 0.5]
        given = [one for one in found["annotations"] if one["image_id"] == image["id"]]
        expected = torch.cat([own.bboxes[:, :2], own.bboxes[:, 2:] - own.bboxes[:, :2]], dim=1)
        boxes = torch.tensor([one["bbox"] for one in given]).reshape(-1, 4)
        torch.testing.assert_close(boxes, expected, rtol=0, atol=1e-5)
        assert [one["score"] for one in given] == pytest.approx(own.scores.tolist(), abs=1e-6)
        assert [one["category_id"] - 1 for one in given] == own.labels.tolist()
        count += len(given)
    assert count > 10, "the test needs boxes"


def test_boxes_do_not_depend_on_the_batch(place: Path, whole: Path, tmp_path: Path) -> None:
    """Images of several sizes; padded to the largest of their batch, some would get other boxes."""
    assert run(place, tmp_path / "four", "--batch-size", "4", "--no-pictures") == 0
    assert len({(each["width"], each["height"]) for each in content(whole)["images"][:4]}) > 1
    for one, other in zip(
        content(whole)["annotations"], content(tmp_path / "four")["annotations"], strict=True
    ):
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-4)
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])


def test_each_image_has_a_picture_under_its_own_name(place: Path, whole: Path) -> None:
    """Folders stay; 0.png, 0.jpg and more/0.png don't overwrite each other, nor anything else an image."""
    drawn = pictures(whole)
    assert sorted(drawn) == NAMES
    found = content(whole)
    image = next(one for one in found["images"] if one["file_name"] == "more/0.png")
    boxes = [one for one in found["annotations"] if one["image_id"] == image["id"]]
    corners = [(*one["bbox"][:2], one["bbox"][0] + one["bbox"][2], one["bbox"][1] + one["bbox"][3])
               for one in boxes]  # fmt: skip
    texts = [f"{small_run.CLASSES[one['category_id'] - 1]} {one['score']:.2f}" for one in boxes]
    colours = [box_pictures.palette(8)[one["category_id"] - 1] for one in boxes]
    source = cv2.imread(str(place / "images/more/0.png"))
    expected = box_pictures.draw_boxes(source, corners, texts, colours)
    assert boxes and np.array_equal(cv2.imread(str(whole / "pictures/more/0.png")), expected)


NAMED: list[tuple[str, list[tuple[str, str]], list[str]]] = [
    ("below", [("a.png", "/d/a.png"), ("b/a.png", "/d/b/a.png")], ["a.png", "b/a.png"]),
    ("absolute", [("/d/x/a.png", "/d/x/a.png"), ("/d/y/a.png", "/d/y/a.png")], ["x/a.png", "y/a.png"]),
    ("above", [("../x/a.png", "/d/l/../x/a.png"), ("a.png", "/d/l/a.png")], ["x/a.png", "l/a.png"]),
    ("alone", [("/d/x/a.png", "/d/x/a.png")], ["a.png"]),
    ("other kinds", [("a.gif", "/d/a.gif"), ("a.TIF", "/d/a.TIF")], ["a.gif.jpg", "a.TIF"]),
    (
        "spellings",
        [("a.jpg", "/d/a.jpg"), ("./a.jpg", "/d/./a.jpg"), ("sub/../a.jpg", "/d/sub/../a.jpg")],
        ["a.jpg", "a_2.jpg", "a_3.jpg"],
    ),
    (
        "a number that is taken",
        [("b/a.jpg", "/d/b/a.jpg"), ("b/a.jpg", "/d/b/a.jpg"), ("b/a_2.jpg", "/d/b/a_2.jpg")],
        ["b/a.jpg", "b/a_3.jpg", "b/a_2.jpg"],
    ),
    (
        "another's name",
        [("a.gif", "/d/a.gif"), ("a.gif.jpg", "/d/a.gif.jpg"), ("b.gif", "/d/b.gif")],
        ["a.gif_2.jpg", "a.gif.jpg", "b.gif.jpg"],
    ),
]


@pytest.mark.parametrize(("case", "images", "names"), NAMED, ids=[row[0] for row in NAMED])
def test_pictures_stay_in_their_folder(case: str, images: list[tuple[str, str]], names: list[str]) -> None:
    given = [ImageFile(number, *each) for number, each in enumerate(images)]
    assert predict.picture_names(given) == names


def test_a_list_a_coco_file_and_one_image(place: Path, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{place}/images/2.png\n{place}/images/more/5.png\n")
    assert run(place, tmp_path / "a", images=tmp_path / "list.txt") == 0
    assert sorted(pictures(tmp_path / "a")) == ["2.png", "more/5.png"]
    coco = small_run.write_coco(tmp_path / "coco.json", ["1.png", "3.png"], boxes=False)
    assert run(place, tmp_path / "b", "--image-root", place / "images", images=coco) == 0
    assert sorted(pictures(tmp_path / "b")) == ["1.png", "3.png"]
    assert run(place, tmp_path / "c", images=place / "images/more/6.png") == 0
    assert sorted(pictures(tmp_path / "c")) == ["6.png"]
    assert pictures(tmp_path / "c")["6.png"] == pictures(whole)["more/6.png"], "alone in its batch both times"


def test_which_network(place: Path, whole: Path, tmp_path: Path, capsys: Any) -> None:
    assert content(whole)["provenance"]["network"] == "teacher"
    best = shutil.copy(place / "model.pth", tmp_path / "best_student.pth")
    image = place / "images/0.png"
    assert run(place, tmp_path / "a", images=image, checkpoint=best) == 0
    assert "the file was kept for its student: --which student" in capsys.readouterr().out
    assert run(place, tmp_path / "b", "--which", "student", images=image, checkpoint=best) == 0
    assert f"student of {best}\n" in capsys.readouterr().out
    assert content(tmp_path / "a")["annotations"] != content(tmp_path / "b")["annotations"]
    assert run(place, tmp_path / "c", images=image, checkpoint=place / "plain.pth", config="plain") == 0
    assert content(tmp_path / "c")["provenance"]["network"] == "student", "there is no teacher"


def test_no_pictures_and_then_pictures(place: Path, whole: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert run(place, out, "--no-pictures") == 0 and [each.name for each in out.iterdir()] == [
        "predictions.json"
    ]
    capsys.readouterr()
    assert run(place, out) == 0
    assert "holds these predictions already" in capsys.readouterr().out
    assert pictures(out) == pictures(whole)
    assert (out / "predictions.json").read_bytes() == (whole / "predictions.json").read_bytes()


def test_another_folder_with_the_same_names(place: Path, whole: Path, tmp_path: Path, capsys: Any) -> None:
    """Its predictions are others; a copy of the same folder has the same ones, wherever and whenever made."""
    copied = shutil.copytree(place / "images", tmp_path / "images", copy_function=shutil.copyfile)
    out = shutil.copytree(whole, tmp_path / "out")
    assert run(place, out, images=copied) == 0
    assert "holds these predictions already" in capsys.readouterr().out
    shutil.copy(copied / "1.png", copied / "2.png")
    assert run(place, out, images=copied) == 2
    assert "holds other labels (of other images)" in capsys.readouterr().err
    assert (out / "predictions.json").read_bytes() == (whole / "predictions.json").read_bytes()


def test_a_very_narrow_image_is_skipped(place: Path, tmp_path: Path, capsys: Any) -> None:
    images = shutil.copytree(place / "images", tmp_path / "images")
    cv2.imwrite(str(images / "2.png"), np.zeros((3000, 4, 3), np.uint8))
    assert run(place, tmp_path / "out", "--num-workers", "1", images=images) == 0
    [skipped] = content(tmp_path / "out")["skipped"]
    assert skipped["fault"] == "too narrow for its scale, 4 x 3000 px"


def test_bad_images_are_named_and_skipped(place: Path, whole: Path, tmp_path: Path, capsys: Any) -> None:
    images = shutil.copytree(place / "images", tmp_path / "images")
    (images / "2.png").write_bytes(b"no image")
    (images / "more/5.png").write_bytes((images / "more/5.png").read_bytes()[:99])
    assert run(place, tmp_path / "out", "--batch-size", "1", images=images) == 0
    said = capsys.readouterr().out
    assert "image 2.png can't be read" in said and "image more/5.png can't be read" in said
    assert "of 7 images, " in said and ", 2 skipped (2.png, more/5.png): " in said.splitlines()[-1]
    found = content(tmp_path / "out")
    assert [each["file_name"] for each in found["skipped"]] == ["2.png", "more/5.png"]
    assert all(each["fault"] for each in found["skipped"])
    rest = [name for name in NAMES if name not in ("2.png", "more/5.png")]
    assert [each["file_name"] for each in found["images"]] == rest == sorted(pictures(tmp_path / "out"))
    assert all(each["width"] and each["height"] for each in found["images"])
    for path in images.rglob("*.*"):
        path.write_bytes(b"no image")
    assert run(place, tmp_path / "none", images=images) == 2
    complained = capsys.readouterr().err
    assert "none of 9 images can be read; the first: 0.jpg" in complained and complained.count("\n") == 1
    assert list((tmp_path / "none").iterdir()) == [], "nothing that --resume would need"


# ---------------------------------------------------------------- stopped and resumed


class Killed(BaseException):
    """What takes the process away in these tests."""


def after(target: Any, name: str, count: int, how: Callable[[], Any]) -> pytest.MonkeyPatch:
    """Patches a function so that `how` happens once it was called `count` times; undo it yourself."""
    patch, original, calls = pytest.MonkeyPatch(), getattr(target, name), []

    def stopping(*given: Any) -> Any:
        if len(calls) == count:
            how()
        calls.append(given)
        return original(*given)

    patch.setattr(target, name, stopping)
    return patch


def die() -> None:
    raise Killed


def test_killed_while_predicting(place: Path, whole: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    patch = after(labeling._Labeler, "rows", 2, die)
    with pytest.raises(Killed):
        run(place, out)
    patch.undo()
    assert run(place, out) == 2
    assert "add --resume to go on" in capsys.readouterr().err
    assert run(place, out, "--resume") == 0
    assert (out / "predictions.json").read_bytes() == (whole / "predictions.json").read_bytes()
    assert pictures(out) == pictures(whole)


def test_stopped_while_drawing(place: Path, whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """What is drawn stays as it is; the rest is drawn by the next call."""
    monkeypatch.setattr(predict, "CHUNK", 1)
    out = tmp_path / "out"
    patch = after(predict, "_write", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run(place, out) == 75
    patch.undo()
    begun = {path: path.stat().st_mtime_ns for path in (out / "pictures").rglob("*.*g")}
    assert 3 <= len(begun) < len(NAMES)
    assert run(place, out, "--resume") == 0
    assert pictures(out) == pictures(whole)
    assert {path: path.stat().st_mtime_ns for path in begun} == begun


def test_pictures_of_other_predictions_are_drawn_anew(place: Path, tmp_path: Path) -> None:
    out, image = tmp_path / "out", place / "images/0.png"
    assert run(place, out, images=image) == 0
    before = pictures(out)
    assert run(place, out, "--min-score", "0.7", images=image) == 2
    (out / "predictions.json").unlink()
    shutil.move(out / "pictures", tmp_path / "old")
    assert run(place, out, "--min-score", "0.7", "--no-pictures", images=image) == 0
    shutil.move(tmp_path / "old", out / "pictures")
    assert run(place, out, "--min-score", "0.7", images=image) == 0
    assert pictures(out).keys() == before.keys() and pictures(out) != before


# ---------------------------------------------------------------- bad input


def holding(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).mkdir() if "." not in name else (folder / name).write_text("{}")
    return folder


def fewer_classes(place: Path, root: Path) -> Path:
    config = Config.fromfile(place / "config.py")
    config.val_dataloader.dataset.metainfo = dict(classes=("a", "b"))
    config.dump(root / "few.py")
    return root / "few.py"


def twins(place: Path, root: Path) -> Path:
    config = Config.fromfile(place / "config.py")
    config.val_dataloader.dataset.metainfo = dict(classes=(*"abcdefg", "a"))
    config.dump(root / "twins.py")
    return root / "twins.py"


Case = Callable[[Path, Path], dict[str, Any]]
BAD: list[tuple[str, Case, str]] = [
    ("another model", lambda place, root: {"checkpoint": place / "plain.pth"}, "belongs to another model"),
    (
        "no teacher",
        lambda place, root: {
            "config": place / "plain.py",
            "checkpoint": place / "plain.pth",
            "more": ["--which", "teacher"],
        },
        "no network 'teacher'",
    ),
    ("classes", lambda place, root: {"config": fewer_classes(place, root)}, "has num_classes=8, but"),
    ("no checkpoint", lambda place, root: {"checkpoint": root / "gone.pth"}, "gone.pth does not exist"),
    ("no images", lambda place, root: {"images": root / "gone"}, "do not exist"),
    ("other files", lambda place, root: {"out": holding(root / "o", "a.txt")}, "holds other files (a.txt)"),
    ("pictures", lambda place, root: {"out": holding(root / "o", "pictures")}, "other files (pictures)"),
    (
        "below a file",
        lambda place, root: {"out": holding(root / "o", "a.txt") / "a.txt/sub"},
        "can't be a folder (Not a directory)",
    ),
    ("classes of one name", lambda place, root: {"config": twins(place, root)}, "names class 'a' twice"),
    ("a file", lambda place, root: {"out": holding(root / "o", "a.txt") / "a.txt"}, "is a file"),
    ("within", lambda place, root: {"out": place / "images/found"}, "lies in the folder of the images"),
    ("score", lambda place, root: {"more": ["--min-score", "30"]}, "a score is between 0 and 1"),
    ("workers", lambda place, root: {"more": ["--num-workers", "-1"]}, "--num-workers -1"),
    ("option", lambda place, root: {"more": ["--cfg-options", "model.detecter=1"]}, "no option 'detecter'"),
]


@pytest.mark.parametrize(("case", "change", "said"), BAD, ids=[row[0] for row in BAD])
def test_bad_input_is_one_line(
    place: Path, tmp_path: Path, capsys: Any, case: str, change: Case, said: str
) -> None:
    given: dict[str, Any] = {
        "config": place / "config.py",
        "checkpoint": place / "model.pth",
        "images": place / "images",
        "out": tmp_path / "out",
        "more": [],
    }
    given |= change(place, tmp_path)
    words = [str(given[key]) for key in ("config", "checkpoint", "images")]
    code = runpy.run_path(str(TOOL))["main"]([*words, "--out", str(given["out"]), *given["more"]])
    complained = capsys.readouterr().err
    assert code == 2 and said in complained
    assert complained.startswith("error: ") and complained.count("\n") == 1
    assert not list(tmp_path.rglob("predictions.json"))
