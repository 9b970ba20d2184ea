"""docs/sweeps.md: its commands are understood, its example expands as it says, its table counts right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from reference.modules import load_tool

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/sweeps.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    python tools/sweep.py")]

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(autouse=True)
def roots(monkeypatch: pytest.MonkeyPatch, data_root: Path, weights_root: Path) -> None:
    monkeypatch.setenv("SSOD_DATA_ROOT", str(data_root))
    monkeypatch.setenv("SSOD_WEIGHTS_ROOT", str(weights_root))


@pytest.fixture(scope="module")
def tool() -> Any:
    """tools/sweep.py as a module."""
    return load_tool("sweep")


def test_every_command_is_understood(tool: Any) -> None:
    given = [tool.parse(shlex.split(command)[2:]) for command in COMMANDS]
    assert len(given) == 3 and given[0].dry_run
    assert all((ROOT / each.sweep).exists() for each in given)
    assert given[2].slurm == {"partition": "gpu", "time": 4000, "cpus_per_task": 6}
    assert (given[2].executor, given[2].max_parallel, given[1].executor, given[1].retries) == (
        *("slurm", 4, "local"),
        2,
    )


def test_the_example_has_the_runs_that_it_says(
    tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "mine.py"
    path.write_text(example.replace('"../', f'"{ROOT}/configs/'))
    assert tool.main([str(path), "--dry-run", "--work-dir", str(tmp_path / "w")]) == 0
    said = capsys.readouterr().out
    assert "This one has 12 runs and 6 twins" in PAGE and "18 runs, 6 of them twins" in said
    assert not (tmp_path / "w").exists()


def test_the_table_of_names_is_complete() -> None:
    from ssod.study.sweep.definition import NAMES, OWN_AXES

    table = PAGE.partition("| name | holds |")[2].partition("\n\n")[0]
    first = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", first)) == set(NAMES)
    assert all(f"`{axis}`" in table for axis in OWN_AXES)


def test_the_table_counts_the_shipped_runs(tmp_path: Path) -> None:
    from ssod.study.sweep.definition import read_definition
    from ssod.study.sweep.plan import expand

    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([\d +]+) \| ([\d +]+) \| ([\d +]+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 7
    for kind, *counts in rows:
        for data, count in zip(("shapes", "bccd"), counts, strict=False):  # COCO's: tests/study/sweep
            runs = expand(read_definition(ROOT / f"configs/sweeps/{kind}_{data}.py"), tmp_path)
            twins = sum(run.twin for run in runs)
            assert count == f"{len(runs) - twins} + {twins}", (kind, data)
