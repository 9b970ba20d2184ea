"""Every snippet of the pages runs, in order, in a folder that looks like the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/new_method.md"
DATASETS = ROOT / "docs/datasets.md"
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# file: (?P<path>[\w/.]+)\n")


def blocks(path: Path = PAGE) -> Iterator[tuple[str, str, int]]:
    """(language, text, line) of each fenced block of a page; of docs/datasets.md those on one's own data."""
    page = path.read_text(encoding="utf-8")
    if path == DATASETS:  # tests/test_docs_datasets.py runs the rest
        page = page[: page.index("## One COCO file")]
        page = re.sub(
            r".*(?=\n## Your own 200)", lambda found: re.sub(r"[^\n]", "", found[0]), page, flags=re.S
        )
    for found in BLOCK.finditer(page):
        yield found["language"], found["text"], page[: found.start()].count("\n") + 2


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the checkout's own folders linked into it, and this Python as `python`."""
    for name in ("configs", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").symlink_to(ROOT / "data")  # where the shapes are drawn
    binaries = tmp_path / ".bin"
    binaries.mkdir()
    (binaries / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (binaries / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_snippet_runs(checkout: Path) -> None:
    """Files are written, other Python goes into one script in the page's order, commands run as typed."""
    script, commands = [], []
    for language, text, line in blocks():
        named = FILE.match(text)
        if named:
            path = checkout / named["path"]
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif language == "python":
            script.append(f"# docs/new_method.md, line {line}\n{text}")
        else:
            assert language == "bash", f"line {line}: a block of {language or 'no language'} can't be run"
            commands.append(text)
    assert len(script) >= 2 and len(commands) >= 2
    (checkout / "snippets.py").write_text("\n".join(script), encoding="utf-8")
    for command in ["python snippets.py", *commands]:
        done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (checkout / "work_dirs/top_boxes_shapes/result.json").exists()


def own_data(folder: Path, bccd: Path) -> None:
    """A folder `own` as docs/datasets.md draws it: 4 labeled, 4 validated, 13 unlabeled, one broken."""
    folder.mkdir()
    (folder / "images").symlink_to(bccd / "images")
    (folder / "unlabeled" / "more").mkdir(parents=True)
    for name, source in (("labeled", "train"), ("val", "val")):
        content = json.loads((bccd / f"{source}.json").read_text())
        images = content["images"][:4]
        ids = {image["id"] for image in images}
        boxes = [one for one in content["annotations"] if one["image_id"] in ids]
        kept = {**content, "images": images, "annotations": boxes}
        (folder / f"{name}.json").write_text(json.dumps(kept))
    unlabeled = json.loads((bccd / "train.json").read_text())["images"][4:16]
    for number, image in enumerate(unlabeled):
        place = folder / "unlabeled" / ("more" if number % 2 else ".") / image["file_name"]
        place.symlink_to(bccd / "images" / image["file_name"])
    (folder / "unlabeled" / "broken.jpg").write_text("no image")


# The page's run, cut to two steps on small views; a network without weights from the internet.
SHORT = """
from ssod.data.pipelines import labeled, strong, test, two_views, weak
from mmengine.config import Config

config = Config.fromfile("my_data.py")
small = (96, 72)
parts = config.train_dataloader.dataset.datasets
parts[0].pipeline, parts[1].pipeline = labeled(small), two_views(weak(small), strong(small))
config.val_dataloader.dataset.pipeline = test(small)
for loader in (config.train_dataloader, config.val_dataloader):
    loader.update(num_workers=0, persistent_workers=False)
config.model.detector = Config.fromfile("configs/_base_/models/faster_rcnn_tiny.py").model.detector
config.model.detector.roi_head.bbox_head.num_classes = 3
config.train_cfg.update(max_iters=2, val_interval=2)
config.dump("my_data.py")
"""


def test_the_way_to_ones_own_data_runs(
    checkout: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/datasets.md from a folder of images to a result: what it says is printed, trained and counted."""
    own_data(checkout / "own", data_root / "bccd")
    monkeypatch.setenv("SSOD_DATA_ROOT", str(checkout))
    commands = []
    for language, text, line in blocks(DATASETS):
        named = FILE.match(text)
        if named:
            (checkout / named["path"]).write_text(text, encoding="utf-8")
            (checkout / "short.py").write_text(SHORT, encoding="utf-8")
        elif language == "python":
            (checkout / "look.py").write_text(text, encoding="utf-8")
        else:
            assert language == "bash", f"line {line}: a block of {language or 'no language'} can't be run"
            commands.append(text)
    printed = []
    for command in ["python look.py", "python short.py", *commands]:
        done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    assert "4 labeled and 13 unlabeled images" in printed[0]
    result = json.loads((checkout / "work_dirs/my_data/result.json").read_text())
    assert result["status"] == "done" and result["split"]["num_unlabeled"] == 12
    assert result["bad_images"]["count"] == 1 and "broken.jpg" in result["bad_images"]["files"][0]["path"]
    assert result["leaks"]["count"] == 0


@pytest.mark.parametrize("path", [PAGE, DATASETS], ids=lambda path: path.name)
def test_the_page_names_what_is_there(path: Path) -> None:
    """Paths of the checkout on the page exist, apart from those in the reader's own folder."""
    page = path.read_text(encoding="utf-8")
    names = re.findall(r"\b(?:configs|tools|docs|ssod|tests)/[\w/.]+\.(?:py|md)\b", page)
    assert names and [name for name in names if not (ROOT / name).exists()] == []
