"""Labeling images: the network's own boxes, the same bytes after a kill, one line for bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from reference import small_run
from reference.modules import load_tool

from ssod.data.pseudo_coco import read_pseudo_coco
from ssod.data.unlabeled import read_images, split_hash
from ssod.engine.config import read_config
from ssod.engine.offline import labeling, provenance
from ssod.engine.offline.label_command import label_with_checkpoint
from ssod.engine.offline.partial import PartialFile, partial_files
from ssod.errors import UserError

pytestmark = pytest.mark.usefixtures("registered")
PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def place(registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `config.py`, `model.pth`, `plain.pth` (no teacher) and `images/`."""
    root = tmp_path_factory.mktemp("labeling")
    small_run.write_images(root / "images")
    small_run.write_config(root / "config.py")
    small_run.write_checkpoint(root / "model.pth", small_run.build())
    small_run.write_checkpoint(root / "plain.pth", small_run.build(teacher=False))
    return root


def label(place: Path, out: Path, **options: Any) -> str:
    given = dict(source=place / "images", checkpoint=place / "model.pth", min_score=0.5) | options
    return label_with_checkpoint(place / "config.py", out=out, **given)


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """The file of a run that nothing interrupted."""
    out = place / "whole.json"
    assert label(place, out) == "done"
    assert not partial_files(out)
    return out


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The batches that are labeled from now on, as indices of images."""
    seen: list[list[int]] = []
    original = labeling._Labeler.rows

    def counted(self: Any, indices: list[int], batch: Any) -> Any:
        found = original(self, indices, batch)
        seen.append(list(indices))
        return found

    monkeypatch.setattr(labeling._Labeler, "rows", counted)
    return seen


def stop_after(count: int, how: Callable[[], Any]) -> pytest.MonkeyPatch:
    """Patches labeling so that `how` happens once `count` batches were labeled; undo it yourself."""
    patch = pytest.MonkeyPatch()
    original, calls = labeling._Labeler.rows, []

    def stopping(self: Any, indices: list[int], batch: Any) -> Any:
        if len(calls) == count:
            how()
        calls.append(indices)
        return original(self, indices, batch)

    patch.setattr(labeling._Labeler, "rows", stopping)
    return patch


class Killed(BaseException):
    """What takes the process away in these tests."""


def die() -> None:
    raise Killed


# ---------------------------------------------------------------- what is written


def test_boxes_are_those_of_the_network_alone(place: Path, whole: Path) -> None:
    """Each image through mmdet's own predict, in its batch; only scores of at least 0.5 are kept."""
    from mmengine.dataset import Compose, pseudo_collate

    model = small_run.build()
    model.load_state_dict(torch.load(place / "model.pth", weights_only=True)["state_dict"])
    config = read_config(place / "config.py")
    pipeline = Compose(provenance.labeling_pipeline(config))
    names = sorted(each.name for each in (place / "images").iterdir())
    file, kept = read_pseudo_coco(whole), []
    for start in range(0, len(names), 2):
        items = [
            pipeline({"img_path": str(place / "images" / name), "img_id": name})
            for name in names[start : start + 2]
        ]
        with torch.no_grad():
            data = model.data_preprocessor(pseudo_collate(items), False)
            samples = model.teacher.predict(data["inputs"], data["data_samples"])
        for offset, sample in enumerate(samples, start + 1):
            found = sample.pred_instances
            for (x, y, right, bottom), score, kind in zip(
                found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
            ):
                if score >= 0.5:
                    kept.append((offset, kind + 1, [x, y, right - x, bottom - y], score))
    assert len(kept) > 5, "the test needs boxes"
    assert [(one["image_id"], one["category_id"]) for one in file.annotations] == [each[:2] for each in kept]
    for one, (*_, box, score) in zip(file.annotations, kept, strict=True):
        assert one["bbox"] == pytest.approx(box, abs=0.0051)
        assert one["score"] == pytest.approx(score, abs=1e-6)
    sizes = [(image["height"], image["width"]) for image in file.images]
    assert sizes == list(small_run.SHAPES) and [image["file_name"] for image in file.images] == names


def test_provenance(place: Path, whole: Path) -> None:
    found = read_pseudo_coco(whole).provenance
    images = read_images(place / "images")
    assert found is not None
    assert found["split_sha256"] == provenance.hash_contents(images.images) != split_hash(images.images)
    assert found["checkpoint_sha256"] == provenance.hash_file(place / "model.pth")
    assert (found["min_score"], found["network"]) == (0.5, "teacher")


def test_the_hash_of_images_is_of_what_is_in_them(tmp_path: Path) -> None:
    """Not of where they lie or when they were copied; of large ones also their middle and their end."""

    def hash_of(folder: str) -> str:
        return provenance.hash_contents(read_images(tmp_path / folder).images)

    pixels = bytes(range(256)) * 200
    for folder in "abcde":
        write(tmp_path / folder / "x.bmp", pixels)
        write(tmp_path / folder / "y.bmp", b"small")
    os.utime(tmp_path / "b/x.bmp", (1, 1))
    for folder, place in (("c", 0), ("d", len(pixels) // 2), ("e", len(pixels) - 1)):
        changed = bytearray(pixels)
        changed[place] ^= 255
        (tmp_path / folder / "x.bmp").write_bytes(changed)
    hashes = [hash_of(folder) for folder in "abcde"]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 4
    (tmp_path / "b/x.bmp").write_bytes(pixels + b"0")
    assert hash_of("b") not in hashes
    images = read_images(tmp_path / "a").images
    (tmp_path / "a/x.bmp").unlink()
    os.mkfifo(tmp_path / "a/x.bmp")  # to open it would wait for ever
    assert provenance.hash_contents(images) not in hashes


def test_which_network(place: Path, whole: Path, tmp_path: Path) -> None:
    label(place, tmp_path / "student.json", which="student")
    content = read_pseudo_coco(tmp_path / "student.json")
    assert content.provenance is not None and content.provenance["network"] == "student"
    assert content.annotations != read_pseudo_coco(whole).annotations


def test_a_list_and_a_coco_file(place: Path, whole: Path, tmp_path: Path) -> None:
    """The same images give the same boxes; a COCO file's ids and categories are kept."""
    names = [f"{number}.png" for number in range(len(small_run.SHAPES))]
    (tmp_path / "list.txt").write_text("\n".join(names))
    label(place, tmp_path / "a.json", source=tmp_path / "list.txt", image_root=place / "images")
    assert (tmp_path / "a.json").read_bytes() == whole.read_bytes()
    path = small_run.write_coco(tmp_path / "coco.json", names, boxes=True)
    content = json.loads(path.read_text())
    for each in (*content["images"], *content["categories"]):
        each["id"] += 100
    path.write_text(json.dumps(content))
    label(place, tmp_path / "b.json", source=path, image_root=place / "images")
    expected = [
        (one["image_id"] + 100, one["category_id"] + 100, one["bbox"])
        for one in read_pseudo_coco(whole).annotations
    ]
    found = read_pseudo_coco(tmp_path / "b.json").annotations
    assert [(one["image_id"], one["category_id"], one["bbox"]) for one in found] == expected


# ---------------------------------------------------------------- kill and resume


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_killed_run_resumes_to_the_same_bytes(
    place: Path, whole: Path, tmp_path: Path, rows: list[Any], batches: int
) -> None:
    out = tmp_path / "labels.json"
    patch = stop_after(batches, die)
    with pytest.raises(Killed):
        label(place, out)
    patch.undo()
    assert not out.exists()
    [partial] = partial_files(out)
    with partial.open("ab") as file:  # the kill came in the middle of a line
        file.write(b'{"batch": 3, "rows": [{"id"')
    rows.clear()
    with pytest.raises(UserError, match="add --resume"):
        label(place, out)
    assert label(place, out, resume=True) == "done"
    assert rows == [[0, 1], [2, 3], [4, 5], [6]][batches:], "finished images must not be repeated"
    assert out.read_bytes() == whole.read_bytes() and not partial_files(out)


def test_a_signal_stops_and_resume_finishes(place: Path, whole: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "labels.json"
    patch = stop_after(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert label(place, out) == "stopped"
    patch.undo()
    assert "--resume" in capsys.readouterr().out and not out.exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert label(place, out, resume=True) == "done"
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(batch_size=3), "another batch_size"),
        (dict(min_score=0.6), "another min_score"),
        (dict(which="student"), "another network"),
    ],
    ids=str,
)
def test_begun_with_something_else(place: Path, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    out = tmp_path / "labels.json"
    patch = stop_after(1, die)
    with pytest.raises(Killed):
        label(place, out)
    patch.undo()
    before = partial_files(out)[0].read_bytes()
    with pytest.raises(UserError, match=f"begun with {said}: remove it"):
        label(place, out, resume=True, **change)
    assert partial_files(out)[0].read_bytes() == before


def test_several_processes_leave_several_files(tmp_path: Path) -> None:
    """Each reads what all have done, also where there are fewer processes than before."""
    out, header = tmp_path / "labels.json", {"batch_size": 2}
    for rank in range(3):
        part = PartialFile(out, header, rank)
        part.open()
        part.add({"batch": rank, "rows": []})
        part.close()
    again = PartialFile(out, header, 0)
    assert [piece["batch"] for piece in again.read()] == [0, 1, 2]
    again.open()
    again.add({"batch": 3, "rows": []})
    again.close()
    assert sorted(piece["batch"] for piece in PartialFile(out, header, 1).read()) == [0, 1, 2, 3]


# ---------------------------------------------------------------- what is there already


def test_done_before_is_left_alone(place: Path, whole: Path, rows: list[Any], capsys: Any) -> None:
    before = whole.stat().st_mtime_ns
    assert label(place, whole) == "done"
    assert rows == [] and whole.stat().st_mtime_ns == before
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(min_score=0.6), "with min_score 0.5, not 0.6"),
        (dict(options={"model.detector.test_cfg.rcnn.max_per_img": 3}), "of another detector"),
        (dict(which="student"), "with network teacher, not student"),
        (dict(source="others"), "of other images"),
    ],
    ids=str,
)
def test_other_labels_are_refused(
    place: Path, whole: Path, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """Of other images also where they have the same names."""
    before = whole.read_bytes()
    if "source" in change:
        change = dict(source=small_run.write_images(tmp_path / "others"))
        shutil.copy(place / "images/1.png", tmp_path / "others/0.png")
    with pytest.raises(UserError, match=f"holds other labels .{said}"):
        label(place, whole, **change)
    assert whole.read_bytes() == before


# ---------------------------------------------------------------- the command


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


Words = Callable[[Path, Path], dict[str, Any]]
BAD: list[tuple[str, Words, str]] = [
    ("no image", lambda place, root: {"images": write(root / "x/a.png", b"no").parent}, "(not an image"),
    ("empty image", lambda place, root: {"images": write(root / "x/a.png", b"").parent}, "a.png (empty"),
    ("empty folder", lambda place, root: {"images": write(root / "x/a.md", b"").parent}, "holds no image"),
    ("no images", lambda place, root: {"images": root / "gone"}, "do not exist"),
    (
        "wrong list",
        lambda place, root: {"images": write(root / "a.txt", b"gone.png")},
        "gone.png (No such file",
    ),
    ("another model", lambda place, root: {"checkpoint": place / "plain.pth"}, "belongs to another model"),
    ("no checkpoint", lambda place, root: {"checkpoint": root / "gone.pth"}, "does not exist"),
    ("no config", lambda place, root: {"config": root / "gone.py"}, "does not exist"),
    ("out nowhere", lambda place, root: {"out": root / "no" / "a.json"}, "the folder does not exist"),
    ("a score of 90", lambda place, root: {"more": ["--min-score", "90"]}, "between 0 and 1"),
    ("no batch", lambda place, root: {"more": ["--batch-size", "0"]}, "at least 1"),
]


@pytest.mark.parametrize(("name", "change", "said"), BAD, ids=[each[0] for each in BAD])
def test_bad_input_is_one_line(
    place: Path, tmp_path: Path, capsys: Any, name: str, change: Any, said: str
) -> None:
    words = dict(
        config=place / "config.py",
        checkpoint=place / "model.pth",
        images=place / "images",
        out=tmp_path / "l.json",
    ) | change(place, tmp_path)
    line = [str(words[key]) for key in ("config", "checkpoint", "images")]
    code = load_tool("pseudo_label").main([*line, "--out", str(words["out"]), *words.get("more", [])])
    complained = capsys.readouterr().err
    assert code == 2 and said in complained
    assert complained.startswith("error: ") and complained.count("\n") == 1


def test_the_command_says_what_it_wrote(place: Path, whole: Path, tmp_path: Path, capsys: Any) -> None:
    words = [place / "config.py", place / "model.pth", place / "images", "--out", tmp_path / "l.json"]
    assert load_tool("pseudo_label").main([*map(str, words), "--min-score", "0.5", "--batch-size", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "boxes on" in said[0] and "of 7 images" in said[0]
    assert (tmp_path / "l.json").read_bytes() == whole.read_bytes()


# ---------------------------------------------------------------- bad images


def label_some_bad(place: Path, folder: Path, out: Path, most_bad: int, **more: Any) -> Any:
    config = read_config(place / "config.py")
    images = read_images(folder)
    model = small_run.build()
    model.load_state_dict(torch.load(place / "model.pth", weights_only=True)["state_dict"])
    made = provenance.provenance_of(config, place / "model.pth", images, 0.5, "teacher")
    pipeline, categories = provenance.labeling_pipeline(config), labeling.categories_of(config)
    how = dict(batch_size=2, most_bad=most_bad) | more
    labeling.label_images(model, images, out, made, pipeline, categories, **how)
    return read_pseudo_coco(out)


def test_an_image_too_narrow_for_the_test_scale_is_a_bad_one(
    place: Path, tmp_path: Path, capsys: Any
) -> None:
    """Its shorter side would have less than half a pixel, which OpenCV refuses."""
    folder = small_run.write_images(tmp_path / "images")
    for name, shape in (("2.png", (4, 3000, 3)), ("3.png", (3000, 4, 3)), ("4.png", (1, 1, 3))):
        cv2.imwrite(str(folder / name), np.zeros(shape, np.uint8))
    found = label_some_bad(place, folder, tmp_path / "a.json", most_bad=2)
    said = capsys.readouterr().out
    assert "image 2.png can't be read: too narrow for its scale, 3000 x 4 px" in said
    assert "image 3.png can't be read: too narrow for its scale, 4 x 3000 px" in said
    assert [image["width"] for image in found.images][2:5] == [0, 0, 1], "a tiny image is none"
    with pytest.raises(UserError, match=r"2\.png is too narrow for its scale, 3000 x 4 px: leave it out"):
        label_some_bad(place, folder, tmp_path / "b.json", most_bad=0)


def test_images_that_cannot_be_read_get_no_box_up_to_a_bound(
    place: Path, tmp_path: Path, capsys: Any
) -> None:
    """As in the stages of STAC; a whole batch of them, too."""
    folder = small_run.write_images(tmp_path / "images")
    for name in ("2.png", "3.png", "5.png"):
        (folder / name).write_bytes(b"no image")
    found = label_some_bad(place, folder, tmp_path / "a.json", most_bad=3)
    assert capsys.readouterr().out.count("can't be read") == 3
    assert [(image["width"], image["height"]) for image in found.images] == [
        (0, 0) if number in (2, 3, 5) else size[::-1] for number, size in enumerate(small_run.SHAPES)
    ]
    assert found.annotations and not {3, 4, 6} & {one["image_id"] for one in found.annotations}
    with pytest.raises(UserError, match=r"3 of 7 images to label can't be read, and 2 may be: 2\.png"):
        label_some_bad(place, folder, tmp_path / "b.json", most_bad=2)
    with pytest.raises(UserError, match=r"2\.png is not an image"):
        label_some_bad(place, folder, tmp_path / "c.json", most_bad=0)


def run(place: Path, images: Path, out: Path, *more: str) -> int:
    words = [place / "config.py", place / "model.pth", images, "--out", out, "--min-score", "0.5", *more]
    code: int = load_tool("pseudo_label").main([str(word) for word in words])
    return code


def spoil(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"no image")


def test_the_command_leaves_bad_images_out_as_many_as_training_does(
    place: Path, whole: Path, tmp_path: Path, capsys: Any
) -> None:
    """Named as they are met, counted at the end, in the file under "skipped"; the others keep their ids."""
    images, out = small_run.write_images(tmp_path / "images"), tmp_path / "a.json"
    spoil(images, "2.png", "5.png")
    assert run(place, images, out, "--batch-size", "1") == 0
    said = capsys.readouterr().out
    assert "image 2.png can't be read: not an image" in said and "5 of 5 images" in said
    assert ", 2 skipped (2.png, 5.png): " in said.splitlines()[-1]
    file = read_pseudo_coco(out)
    assert [(each["id"], each["file_name"]) for each in file.skipped] == [(3, "2.png"), (6, "5.png")]
    assert [each["id"] for each in file.images] == [1, 2, 4, 5, 7] and not partial_files(out)
    assert run(place, images, out, "--batch-size", "1") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_above_the_bound_one_line_names_them_all_and_says_what_goes_on(
    place: Path, tmp_path: Path, capsys: Any
) -> None:
    """What was labeled is kept for a higher bound; for mended images it is of no use, and that is said."""
    images, out = small_run.write_images(tmp_path / "images"), tmp_path / "a.json"
    spoil(images, "1.png", "2.png", "4.png", "5.png")
    assert run(place, images, out) == 2
    complained = capsys.readouterr().err
    assert "4 of 7 images to label can't be read, and 3 may be: 1.png (not" in complained
    assert "5.png (not" in complained and complained.count("\n") == 1
    assert run(place, images, out, "--resume", "--cfg-options", "data_policy.max_bad_fraction=0.6") == 0
    assert len(read_pseudo_coco(out).skipped) == 4
    out.unlink()
    assert run(place, images, out) == 2
    (images / "1.png").unlink()
    capsys.readouterr()
    for more in ((), ("--resume",)):
        assert run(place, images, out, *more) == 2
        assert "was begun with other images: remove it to begin anew" in capsys.readouterr().err
    partial_files(out)[0].unlink()
    assert run(place, images, out) == 0


def test_a_policy_of_no_bad_image_stops_at_the_first(place: Path, tmp_path: Path, capsys: Any) -> None:
    images = small_run.write_images(tmp_path / "images")
    spoil(images, "2.png")
    assert run(place, images, tmp_path / "a.json", "--cfg-options", "data_policy.on_bad_image=raise") == 2
    assert "2.png is not an image" in capsys.readouterr().err


def test_images_mended_since_are_read_again(place: Path, tmp_path: Path, whole: Path) -> None:
    """Where labels are of names alone, as in the stages of STAC."""
    folder, out = small_run.write_images(tmp_path / "images"), tmp_path / "a.json"
    spoil(folder, "2.png")
    with pytest.raises(UserError, match="2 of 7"):
        spoil(folder, "3.png")
        label_some_bad(place, folder, out, most_bad=1)
    for name in ("2.png", "3.png"):
        shutil.copy(place / "images" / name, folder / name)
    label_some_bad(place, folder, out, most_bad=1, resume=True)
    assert read_pseudo_coco(out).annotations == read_pseudo_coco(whole).annotations


def test_the_command_is_quiet_from_its_first_import(tmp_path: Path) -> None:
    """mmdet greets whoever imports its datasets, twice."""
    words = [sys.executable, str(PROJECT / "tools/pseudo_label.py"), "gone.py", "gone.pth", "gone"]
    done = subprocess.run([*words, "--out", "a.json"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
