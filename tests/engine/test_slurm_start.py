"""Where the tasks of a SLURM step meet, read from SLURM's variables as 22.05 sets them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest

from ssod.engine import processes
from ssod.engine.processes import choose_launcher, first_host, slurm_variables, start_processes
from ssod.errors import UserError

# The second task on the third node, of a step on three of the job's four nodes; srun typed on a login node.
STEP = {
    "SLURM_JOB_ID": "417",
    "SLURM_JOB_NODELIST": "gpu[006-009]",
    "SLURM_NODELIST": "gpu[006-009]",
    "SLURM_NTASKS": "8",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NODELIST": "gpu[007-009]",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
EXPECTED = {
    "RANK": "5",
    "WORLD_SIZE": "6",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "gpu007",
    "MASTER_PORT": str(10_000 + 417 + 2 * 4_999),
}


def test_the_steps_numbers() -> None:
    assert slurm_variables(STEP) == EXPECTED


def test_what_the_user_sets_stays() -> None:
    own = {"MASTER_ADDR": "gpu007-ib", "MASTER_PORT": "4321"}
    assert slurm_variables({**STEP, **own}) == {**EXPECTED, **own}


@pytest.mark.parametrize("name", ["SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID"])
def test_outside_of_a_step(name: str) -> None:
    environment = {key: value for key, value in STEP.items() if key != name}
    with pytest.raises(UserError, match=rf"^--launcher slurm: {name} is not set; start with srun$"):
        slurm_variables(environment)


def test_neighbours_have_ports_of_their_own() -> None:
    """Jobs of a node have numbers near each other, or are steps of one job; each port is one to be had."""
    many = [
        int(slurm_variables({**STEP, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})["MASTER_PORT"])
        for job in range(9_876_500, 9_876_900)
        for step in range(4)
    ]
    assert len(set(many)) == len(many)
    assert min(many) >= 10_000 and max(many) < 30_000


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu007", "gpu007"),
        ("gpu[007-012,031],login1", "gpu007"),
        ("gpu[3,5-7]", "gpu3"),
        ("a,b[1-2]", "a"),
        ("rack[2-3]n[01-16]-ib", "rack2n01-ib"),
    ],
)
def test_the_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the backends were started with, in this step; nothing is started."""
    calls: list[Any] = []
    for name in (*EXPECTED, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "init_dist", lambda *words, **more: calls.append((*words, more)))
    monkeypatch.setattr(
        processes.torch.distributed, "init_process_group", lambda *words, **more: calls.append((*words, more))
    )
    return calls


@pytest.mark.parametrize(("visible", "local_rank"), [(0, "1"), (8, "1"), (1, "0")])
def test_a_rank_takes_its_gpu(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, visible: int, local_rank: str
) -> None:
    """GPU 1 of eight in sight; GPU 0 where a task sees only its own (--gpus-per-task=1)."""
    monkeypatch.setattr(processes.torch.cuda, "is_available", lambda: visible > 0)
    monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: visible)
    start_processes(choose_launcher(), timeout=60)
    seconds = 60 + processes.GRACE
    gpu = ("pytorch", {"backend": "nccl", "timeout": seconds})
    assert started == [gpu if visible else ("gloo", {"timeout": timedelta(seconds=seconds)})]
    assert {name: os.environ[name] for name in EXPECTED} == {**EXPECTED, "LOCAL_RANK": local_rank}
