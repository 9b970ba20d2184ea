"""How processes are found and started, how long they wait, and whether torchrun has restarted them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from reference import ranks

from ssod.engine.processes import GRACE, PATIENCE, choose_launcher, start_processes, timeout_of, was_restarted
from ssod.engine.train import train
from ssod.errors import UserError


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({}, "none"),
        ({"RANK": "0", "WORLD_SIZE": "1"}, "pytorch"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, "slurm"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, "none"),
        ({"SLURM_NTASKS": "4"}, "none"),  # sbatch's script itself
    ],
)
def test_the_launcher_is_found(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], launcher: str
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert choose_launcher() == choose_launcher("none") == launcher
    assert choose_launcher("mpi") == "mpi"


def test_patience_is_configured() -> None:
    assert timeout_of(Config({})) == timeout_of(Config({"env_cfg": {"cudnn_benchmark": True}})) == PATIENCE
    assert timeout_of(Config({"env_cfg": {"dist_cfg": {"timeout": 90}}})) == 90.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"timeout": 0}, "timeout is 0; give a number of seconds above 0"),
        ({"timeout": "10m"}, "timeout is '10m'"),
        ({"timeout": True}, "timeout is True"),
        ({"backend": "nccl"}, "no option 'backend'; its only one is timeout"),
    ],
)
def test_a_wrong_patience_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        timeout_of(Config({"env_cfg": {"dist_cfg": given}}))
    assert "\n" not in str(caught.value)


def started(rank: int) -> tuple[str, float, bool]:
    """The backend, the seconds that an exchange may take, and whether this is a second life."""
    start_processes("pytorch", 77.0)
    group: Any = torch.distributed.distributed_c10d._get_default_group()
    seconds = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    return torch.distributed.get_backend(), seconds, was_restarted()


def test_an_exchange_may_take_a_little_longer_than_the_watch_waits(tmp_path: Path) -> None:
    assert ranks.run(started, tmp_path) == [("gloo", 77.0 + GRACE, False)] * 2


def joined(rank: int) -> bool:
    """Whether both processes know of the restart of one: torchrun's second agent may be a new one."""
    import os

    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(rank)
    start_processes("pytorch", 120)
    return was_restarted()


def test_a_restart_of_one_is_known_to_all(tmp_path: Path) -> None:
    assert ranks.run(joined, tmp_path) == [True, True]


def test_after_a_restart_the_run_goes_on(
    toy_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    out = tmp_path / "run"
    train(toy_config(), work_dir=out, options={"train_cfg.max_iters": 3})
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train(toy_config(), work_dir=out)["iterations"] == 8
    said = capfd.readouterr().out
    assert "torchrun restarted the run" in said and "resuming " in said
    # Before there is a checkpoint, it begins as it was asked to.
    other = tmp_path / "other"
    source = out / "checkpoints" / "best_student.pth"
    with pytest.raises(UserError, match="has no optimizer state"):
        train(toy_config(), work_dir=other, resume=source)
