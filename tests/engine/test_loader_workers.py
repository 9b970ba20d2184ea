"""Signals that reach a whole group of processes: the loader's workers outlive them, once."""

from __future__ import annotations

import json
import os
import signal
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


def test_a_worker_survives_one_of_each_signal_and_ends_at_the_second_sigterm() -> None:
    begun: list[int] = []
    loader = DataLoader(
        Numbers(), num_workers=1, batch_size=1, prefetch_factor=1, worker_init_fn=begun.append
    )
    outlive_signals(loader)
    stream = iter(loader)
    pid = int(next(stream)[1])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(pid, number)
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
            os.killpg(0, number)
            time.sleep(0.5)

    def work(rank: int) -> Any:
        os.setpgid(0, 0)
        torch.set_num_threads(1)
        monkeypatch.setattr(toy, "set_step", set_step)
        return train(config, work_dir=tmp_path / "run", options={"train_dataloader.num_workers": 2})["status"]

    assert ranks.run(work, tmp_path / "out", count=1) == ["stopped"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["iterations"]) == ("stopped", 5)
