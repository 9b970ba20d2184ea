"""A folder as unlabeled data in whole runs of tools/train.py: broken files of nine kinds, leaks, resume."""

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from reference.modules import load_tool

PROJECT = Path(__file__).resolve().parents[2]
NUM_UNLABELED = 185  # 9 of them broken: 5 %
SCALE = (64, 48)


@pytest.fixture(scope="module")
def train_tool() -> ModuleType:
    module: ModuleType = load_tool("train")
    return module


@pytest.fixture
def photos(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The 185 unlabeled images of bccd in a plain folder, as links."""
    monkeypatch.setenv("SSOD_DATA_ROOT", str(data_root))
    monkeypatch.setenv("SSOD_CACHE", str(tmp_path / "cache"))
    config = Config.fromfile(PROJECT / "configs/soft_teacher/bccd_10.py")
    labeled = set(config.train_dataloader.dataset.datasets[0].only_ids)
    images = json.loads((data_root / "bccd" / "train.json").read_text())["images"]
    names = [image["file_name"] for image in images if image["id"] not in labeled]
    assert len(names) == NUM_UNLABELED
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(data_root / "bccd" / "images" / name)
    return folder


def broken(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Nine files broken, each in its own way: (name -> reason) found by the index, and by reading."""
    names = sorted(path.name for path in folder.iterdir())[::20][:9]
    whole = [(folder / name).read_bytes() for name in names]
    for name in names:
        (folder / name).unlink()
    noise = np.random.default_rng(0).integers(0, 256, 3000, dtype=np.uint8)
    png = cv2.imencode(".png", noise.reshape(25, 40, 3))[1].tobytes()
    (folder / names[0]).write_bytes(b"")
    (folder / names[1]).write_text("<html>404 not found</html>")
    (folder / names[2]).symlink_to(folder / "gone.jpg")
    (folder / names[3]).symlink_to(folder / names[3])  # nobody can open it: root, too
    os.mkfifo(folder / names[4])
    (folder / names[5]).write_bytes(whole[5][:5000])
    (folder / names[6]).write_bytes(whole[6][:5000] + bytes(len(whole[6]) - 5000))
    (folder / names[7]).write_bytes(whole[7][:4000] + noise.tobytes() + whole[7][7000:])
    (folder / names[8]).write_bytes(png[: len(png) // 2])
    reasons = ["empty", "not an image", "No such file", "symbolic links", "not a file"]
    reasons += ["truncated or damaged"] * 4
    reason_of = dict(zip(names, reasons, strict=True))
    by_index = set(names[:5])
    return (
        {name: reason for name, reason in reason_of.items() if name in by_index},
        {name: reason for name, reason in reason_of.items() if name not in by_index},
    )


def write_config(path: Path, images: Any, **policy: Any) -> Path:
    """Soft Teacher on bccd at a tiny size, with one worker; a pass of 180 images is 4 steps."""
    from ssod.data.pipelines import labeled, strong, test, two_views, weak

    config = Config.fromfile(PROJECT / "configs/soft_teacher/shapes.py")
    data = Config.fromfile(PROJECT / "configs/soft_teacher/bccd_10.py")
    config.classes = data.classes
    config.model.detector.roi_head.bbox_head.num_classes = 3
    config.model.method.unsup_weight = dict(value=1.0, start=1000)  # images are read, the teacher rests
    loader = data.train_dataloader
    loader.dataset.datasets[0].pipeline = labeled(scale=SCALE)
    loader.dataset.datasets[1] = dict(
        type="UnlabeledImages", images=images, pipeline=two_views(weak(SCALE), strong(SCALE))
    )
    loader.update(batch_size=47, num_workers=1, sampler=dict(type=loader.sampler.type, counts=(2, 45)))
    config.train_dataloader = loader
    config.val_dataloader = data.val_dataloader
    config.val_dataloader.dataset.update(indices=4, pipeline=test(scale=SCALE))
    config.val_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False)
    config.val_evaluator = data.val_evaluator
    config.train_cfg.update(max_iters=4, val_interval=4)
    config.default_hooks.scalars.interval = 2
    config.default_hooks.pictures.num_images = 1
    config.default_hooks.telemetry.num_images = 4
    config.data_policy = policy
    config.dump(path)
    return path


@pytest.fixture
def run(train_tool: ModuleType, capsys: Any) -> Callable[..., tuple[int, str, str]]:
    """Function: (exit code, what was printed, what was complained of) of the command."""

    def call(*words: Any) -> tuple[int, str, str]:
        code = train_tool.main([*map(str, words)])
        printed, complained = capsys.readouterr()
        gc.collect()  # loader workers, which hold the work dir's lock as long as they live
        return code, printed, complained

    return call


def result_of(work_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((work_dir / "result.json").read_text())
    return content


def test_broken_files_are_replaced_counted_and_named(
    photos: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    by_index, by_reading = broken(photos)
    config = write_config(tmp_path / "run.py", str(photos), max_bad_fraction=0.05)
    code, printed, complained = run(config, "--work-dir", tmp_path / "run")
    assert code == 0, complained
    result = result_of(tmp_path / "run")
    assert result["status"] == "done" and result["leaks"] == {"count": 0, "pairs": {}}
    assert result["split"]["num_unlabeled"] == NUM_UNLABELED - len(by_index)
    bad = result["bad_images"]
    assert (bad["count"], bad["replaced"], len(bad["files"])) == (9, 4, 9)
    found = {Path(each["path"]).name: each["reason"] for each in bad["files"]}
    expected = {**by_index, **by_reading}
    assert set(found) == set(expected)
    assert all(expected[name] in found[name] for name in expected)
    assert {each["source"] for each in bad["files"]} == {"unlabeled"}
    log = (tmp_path / "run" / "train.log").read_text()
    assert all(log.count(f"{photos / name} can't be read") == 1 for name in expected)
    assert printed.count("can't be read") == 4 and "9 images could not be read" in printed

    # A pass later: the same draws in their place, the count goes on, and a file that was mended is dropped.
    name = next(iter(by_reading))
    (photos / name).write_bytes((photos / sorted(set(os.listdir(photos)) - set(expected))[0]).read_bytes())
    more = ("--cfg-options", "train_cfg.max_iters=8")
    code, _, complained = run(config, "--work-dir", tmp_path / "run", "--resume", *more)
    assert code == 0, complained
    bad = result_of(tmp_path / "run")["bad_images"]
    assert (bad["count"], bad["replaced"]) == (8, 7)
    assert name not in [Path(each["path"]).name for each in bad["files"]]


def test_too_many_broken_files_stop_the_run_with_their_names(
    photos: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    by_index, _ = broken(photos)
    config = write_config(tmp_path / "run.py", str(photos))  # 1 %, but at least 3
    code, _, complained = run(config, "--work-dir", tmp_path / "run")
    assert code == 2 and complained.count("\n") == 1
    assert f"5 of {NUM_UNLABELED} unlabeled images can't be read, and 3 may be" in complained
    assert all(name in complained for name in by_index)


@pytest.mark.slow
def test_too_many_that_are_found_on_the_way_keep_the_way(
    photos: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    by_index, by_reading = broken(photos)
    for name in by_index:
        (photos / name).unlink()
    config = write_config(tmp_path / "run.py", str(photos))
    code, _, complained = run(config, "--work-dir", tmp_path / "run")
    assert code == 2 and "4 of 180 unlabeled images can't be read, and 3 may be" in complained
    assert all(name in complained for name in by_reading)
    result = result_of(tmp_path / "run")
    assert result["status"] == "failed" and result["bad_images"]["count"] == 4
    good = (photos / sorted(set(os.listdir(photos)) - set(by_reading))[0]).read_bytes()
    for number, name in enumerate(by_reading):
        (photos / name).write_bytes(good + bytes([number]))  # mended: the run goes on
    code, _, complained = run(config, "--work-dir", tmp_path / "run", "--resume")
    assert code == 0, complained
    assert result_of(tmp_path / "run")["bad_images"]["count"] == 0


@pytest.mark.slow
def test_raise_stops_at_the_first(
    photos: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    by_index, by_reading = broken(photos)
    for name in by_index:
        (photos / name).unlink()
    config = write_config(tmp_path / "run.py", str(photos), on_bad_image="raise")
    code, _, complained = run(config, "--work-dir", tmp_path / "run")
    assert code == 2 and complained.count("\n") == 1
    assert any(name in complained for name in by_reading) and "truncated or damaged" in complained


def test_leaks_are_refused_unless_allowed(
    photos: Path, data_root: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    images = data_root / "bccd" / "images"
    val = json.loads((data_root / "bccd" / "val.json").read_text())["images"][0]["file_name"]
    (photos / "copy.jpg").write_bytes((images / val).read_bytes())
    config = write_config(tmp_path / "run.py", [str(photos), str(images / "BloodImage_0000[0-9].jpg")])
    code, _, complained = run(config, "--work-dir", tmp_path / "run")
    assert code == 2 and complained.count("\n") == 1 and "data_policy.allow_leaks=True" in complained
    assert "between unlabeled and val" in complained
    options = ("data_policy.allow_leaks=True", "train_cfg.max_iters=1", "train_dataloader.num_workers=0")
    options = ("--cfg-options", *options, "train_dataloader.persistent_workers=False")
    code, printed, complained = run(config, "--work-dir", tmp_path / "other", *options)
    assert code == 0, complained
    assert "the same image lies in two parts" in printed
    assert result_of(tmp_path / "other")["leaks"]["count"] >= 1
