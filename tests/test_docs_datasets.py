"""The commands of docs/datasets.md run as they stand, on small data laid out as the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
OWN = PAGE[PAGE.index("## Your own 200") : PAGE.index("## One COCO file")]  # tests/test_docs.py runs it
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The fenced blocks, each of which must be of commands."""
    found = BLOCK.findall(PAGE.replace(OWN, ""))
    assert {language for _, language, _ in found} == {"bash"}
    return [text for _, _, text in found]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the tools, a small coco/ below SSOD_DATA_ROOT, a VOC and a YOLO folder."""
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    (tmp_path / ".bin").mkdir()
    python = tmp_path / ".bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / '.bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("SSOD_DATA_ROOT", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)

    annotations = tmp_path / "datasets/coco/annotations"
    annotations.mkdir(parents=True)
    images = [dict(id=n, file_name=f"{n}.jpg", width=8, height=6) for n in range(1, 301)]
    content = dict(images=images, annotations=[], categories=[dict(id=1, name="person")])
    (annotations / "instances_train2017.json").write_text(json.dumps(content))

    voc = tmp_path / "VOCdevkit/VOC2007"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (voc / name).mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(voc / "JPEGImages/000005.jpg")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>6</ymax></bndbox>"
    (voc / "Annotations/000005.xml").write_text(
        f"<annotation><filename>000005.jpg</filename><object><name>chair</name>{box}</object></annotation>"
    )
    (voc / "ImageSets/Main/trainval.txt").write_text("000005\n")

    yolo = tmp_path / "my_yolo"
    for name in ("images/train", "labels/train"):
        (yolo / name).mkdir(parents=True)
    for number in range(40):
        Image.new("RGB", (8, 6)).save(yolo / f"images/train/{number}.png")
        (yolo / f"labels/train/{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.5 0.5\n")
    (yolo / "data.yaml").write_text("names: [cat, dog]\n")
    return tmp_path


def test_every_command_runs(folder: Path) -> None:
    for text in commands():
        done = subprocess.run(["bash", "-ec", text], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    semi = {each.name for each in (folder / "datasets/coco/semi_anns").iterdir()}
    assert {
        "instances_train2017.1@10.json",
        "instances_train2017.1@10-unlabeled.json",
        "manifest.json",
    } <= semi
    assert len(semi) == 4 * 5 * 2 + 1
    boxes = json.loads((folder / "voc2007_trainval.json").read_text())["annotations"]
    assert [one["bbox"] for one in boxes] == [[0, 0, 4, 6]]
    aside = json.loads((folder / "my_splits/my_train-held-out.json").read_text())
    assert len(aside["images"]) == 6
    for fold in (1, 2, 3):
        labeled = json.loads((folder / f"my_splits/my_train.{fold}@10.json").read_text())
        assert sorted(one["category_id"] for one in labeled["annotations"]) in ([1, 1, 2], [1, 2, 2])


def test_the_page_names_what_is_there() -> None:
    names = re.findall(r"\b(?:configs|tools|docs|ssod|tests)/[\w/.]+\.(?:py|md)\b", PAGE)
    assert names and [name for name in names if not (ROOT / name).exists()] == []
