"""docs/cluster.md: its commands are understood and fit the processes they start, its table is printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from reference.modules import load_tool

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip()
    for line in PAGE.replace("\\\n", " ").splitlines()
    if line.startswith("    ") and "tools/train.py" in line
]
SHORT = (
    *("train_cfg.max_iters=2", "train_cfg.val_interval=2", "val_dataloader.dataset.indices=4"),
    *(f"{part}_dataloader.num_workers=0" for part in ("train", "val")),
    *(f"{part}_dataloader.persistent_workers=False" for part in ("train", "val")),
)

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(scope="module")
def tool() -> Any:
    """tools/train.py as a module."""
    return load_tool("train")


def processes(words: list[str]) -> int:
    """How many processes the words before tools/train.py start."""
    given = {name: int(value) for name, value in pairwise(words) if value.isdigit()}
    per_node = given.get("--nproc-per-node") or given.get("--ntasks-per-node") or 1
    return given.get("--nnodes", 1) * per_node


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood_and_scales(tool: Any, command: str) -> None:
    from ssod.engine.config import load_config
    from ssod.engine.recipe.scaling import at_size

    words = shlex.split(command)
    place = words.index("tools/train.py")
    given = tool.parse(words[place + 1 :])
    config = load_config(ROOT / given.config, given.cfg_options)
    scaled, said = at_size(config, given.scale_to, given.cfg_options, processes(words[:place]))
    if given.scale_to:
        assert scaled.written_for.world_size == processes(words[:place]) and "nothing changes" not in said
    elif processes(words[:place]) == 8:
        assert said == ""  # the published number


def test_there_are_commands_of_every_kind() -> None:
    assert len(COMMANDS) >= 8
    for kind in ("torchrun", "srun", "--nnodes", "--scale-to", "accumulative_counts"):
        assert any(kind in command for command in COMMANDS)


def blocks(language: str) -> Iterator[str]:
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        if found[1] == language:
            yield found[2]


def test_the_table_is_what_is_printed() -> None:
    from ssod.engine.config import load_config
    from ssod.engine.recipe.scaling import at_size

    (table,) = blocks("")
    _, said = at_size(load_config(ROOT / "configs/soft_teacher/coco_10.py"), "1x1+4", {}, 1)
    assert table == f"{said}\n"


def test_the_line_of_the_config_is_cocos() -> None:
    from ssod.engine.config import load_config

    (line,) = blocks("python")
    written: dict[str, Any] = {}
    exec(line, written)
    assert written["written_for"] == load_config(ROOT / "configs/soft_teacher/coco_10.py").written_for


def test_paths_and_neighbours_are_named_as_they_are() -> None:
    names = re.findall(r"\b(?:configs|tools|ssod|tests)/[\w/.]+\.(?:py|md)\b", PAGE)
    assert names and [name for name in names if not (ROOT / name).exists()] == []
    assert {"slurm.md", "reliability.md"} <= set(re.findall(r"\]\(([\w.]+)\)", PAGE))


@pytest.mark.slow
def test_two_processes_train_a_recipe_for_one(tmp_path: Path) -> None:
    """shapes is written for 1 x (8 + 8); 2 x (2 + 2) is half of it, so twice as long."""
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "tools/train.py")]
    words += [str(ROOT / "configs/soft_teacher/shapes.py"), "--scale-to", "2x2+2"]
    words += ["--work-dir", str(tmp_path / "run"), "--cfg-options", *SHORT]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=580, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("--scale-to 2x2+2: 8 images an optimizer step, 1/2 times the 16") == 1
    from ssod.engine.records import result

    record = result.read_result(tmp_path / "run")
    assert record is not None and (record["world_size"], record["iterations"]) == (2, 4)
    assert record["images_seen"] == {"labeled": 16, "unlabeled": 16}  # 2 iterations of 8 + 8 before
