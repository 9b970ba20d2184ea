"""One process with a batch of 2k and two with k each train alike: losses to 1e-5, teachers to the bit.

Both get the same images in the same views. The normalisers of the losses are fixed (`reference/parity.py`
says why): the detector's own count the boxes of one process, so they differ by design. Every box is sampled,
so nothing is left to chance, and the arithmetic is float64, so no choice between two boxes turns on rounding.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reference import parity, ranks

PROJECT = Path(__file__).resolve().parents[2]
STEPS = 20


def on_ranks(name: str, folder: Path, world: int, steps: int = STEPS) -> list[Any]:
    """What `parity.train` saw on each process; forked, for it patches what losses are divided by."""

    def work(rank: int) -> Any:
        from ssod.engine.processes import start_processes

        if world > 1:
            start_processes("pytorch", 300)
        return parity.train(name, steps)

    return ranks.run(work, folder, world)


def assert_parity(alone: dict[str, Any], both: list[dict[str, Any]]) -> None:
    """The mean of the processes' losses is that of the one, step by step and term by term."""
    assert len({each["teacher"] for each in both}) == 1
    taught = [any(each[key] > 0 for key in each if key.startswith("unsup_loss")) for each in alone["losses"]]
    assert sum(taught) > len(taught) / 2
    for step, expected in enumerate(alone["losses"]):
        for key, value in expected.items():
            mean = sum(each["losses"][step][key] for each in both) / len(both)
            assert mean == pytest.approx(value, rel=1e-5, abs=1e-7), (step, key)


def test_twenty_steps_of_soft_teacher(registered: None, tmp_path: Path) -> None:
    [alone] = on_ranks("SoftTeacher", tmp_path / "alone", 1)
    both = on_ranks("SoftTeacher", tmp_path / "both", 2)
    assert_parity(alone, both)
    assert both[0]["losses"][0] != both[1]["losses"][0]  # each had images of its own


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in parity.METHODS if name != "SoftTeacher"])
def test_twenty_steps_of_the_other_methods(registered: None, tmp_path: Path, name: str) -> None:
    [alone] = on_ranks(name, tmp_path / "alone", 1)
    assert_parity(alone, on_ranks(name, tmp_path / "both", 2))


@pytest.mark.slow
def test_twenty_steps_under_two_agents_of_torchrun(registered: None, tmp_path: Path) -> None:
    [alone] = on_ranks("SoftTeacher", tmp_path / "alone", 1)
    program = [str(PROJECT / "tests" / "reference" / "parity.py"), str(tmp_path), "SoftTeacher", str(STEPS)]
    endpoint = f"127.0.0.1:{ranks.free_port()}"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "--rdzv-id=parity"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    agents = [subprocess.Popen([*torchrun, *meeting, *program], env=environment) for _ in range(2)]
    try:
        assert [each.wait(timeout=600) for each in agents] == [0, 0]
    finally:
        for each in agents:
            each.kill()
    assert_parity(alone, [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)])
