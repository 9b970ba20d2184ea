"""Every snippet of docs/new_method.md runs, in order, in a folder that looks like the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/new_method.md"
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# file: (?P<path>[\w/.]+)\n")


def blocks() -> Iterator[tuple[str, str, int]]:
    """(language, text, line) of each fenced block."""
    page = PAGE.read_text(encoding="utf-8")
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


def test_the_page_names_what_is_there() -> None:
    """Paths of the checkout on the page exist, apart from those in the reader's own folder."""
    page = PAGE.read_text(encoding="utf-8")
    names = re.findall(r"\b(?:configs|tools|docs|ssod|tests)/[\w/.]+\.(?:py|md)\b", page)
    assert names and [name for name in names if not (ROOT / name).exists()] == []
