"""Signals that reach a whole group of processes: the loader's workers outlive them, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import ranks
from torch.utils.data import DataLoader, Dataset

from ssod.engine.loader_workers import outlive_signals
from ssod.engine.train import train


class Numbers(Dataset[Any]):
    """An index, and the pid that read it."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[int, int]:
        return index, os.getpid()


def send(number: int, target: int) -> None:
    """Sends a signal from another process, to a process or, with a minus, to a group."""
    subprocess.run(["kill", "-s", str(int(number)), "--", str(target)])


def test_a_worker_heeds_only_the_sigterm_of_its_own_process() -> None:
    loader = DataLoader(Numbers(), num_workers=1, prefetch_factor=1)
    outlive_signals(loader)
    stream = iter(loader)
    pid = int(next(stream)[1])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        send(number, pid)
    time.sleep(0.2)
    assert int(next(stream)[1]) == int(next(stream)[1]) == pid
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(RuntimeError, match="worker"):
        for _ in range(5):
            time.sleep(0.2)
            next(stream)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_stops_in_good_order_when_its_whole_group_is_signaled(
    toy_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from ssod.registry import MODELS

    config, toy = toy_config(), MODELS.get("ToyModel")
    told = toy.set_step

    def set_step(self: Any, step: int) -> None:
        told(self, step)
        if step == 4:
            send(number, -os.getpgrp())
            time.sleep(0.5)

    def work(rank: int) -> Any:
        os.setpgid(0, 0)
        torch.set_num_threads(1)
        monkeypatch.setattr(toy, "set_step", set_step)
        return train(config, work_dir=tmp_path / "run", options={"train_dataloader.num_workers": 2})["status"]

    assert ranks.run(work, tmp_path / "out", count=1) == ["stopped"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["iterations"]) == ("stopped", 5)
