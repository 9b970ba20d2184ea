"""A run that is killed at twenty moments, and resumed each time, is to the bit the run that nobody killed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.killed_runs import METHODS, STEPS, Kill, differences, kills, live, state_of, write_config

SLOW = [pytest.param(name, marks=() if name == "SoftTeacher" else pytest.mark.slow) for name in METHODS]


@pytest.mark.parametrize("method", SLOW)
def test_each_place_once(registered: None, method: str, tmp_path: Path) -> None:
    kill_and_compare(tmp_path, method, [Kill(place, 2) for place in ("step", "checkpoint", "validation")])


# Each method once, each pair of processes and workers once or twice. SSOD_EVERY_KILL=1 takes all 24: an hour.
EVERY = [(method, processes, workers) for method in METHODS for processes in (1, 2) for workers in (0, 2)]
SOME = [each for number, each in enumerate(EVERY) if number % 4 == number // 4 % 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "processes", "workers"), EVERY if os.environ.get("SSOD_EVERY_KILL") else SOME
)
def test_twenty_random_moments(
    registered: None, method: str, processes: int, workers: int, tmp_path: Path
) -> None:
    seed = list(METHODS).index(method) * 10 + processes * 4 + workers
    kill_and_compare(tmp_path, method, kills(seed, 20, 6.0, processes), processes, workers)


def kill_and_compare(
    folder: Path, method: str, ends: list[Kill], processes: int = 1, workers: int = 0
) -> None:
    from ssod.engine.saving import checkpoints

    config = write_config(folder, method, workers)
    whole, parts = folder / "whole", folder / "parts"
    assert live(config, whole, world=processes) == [0] * processes, (folder / "whole.log").read_text()
    for kill in ends:
        codes = live(config, parts, kill, processes)
        said = (folder / "parts.log").read_text()[-3000:]
        assert set(codes) <= {-9, 0, 1}, said
        for path in parts.rglob("checkpoints/*.pth"):
            checkpoints.load(path)
    codes = live(config, parts, world=processes)
    assert codes == [0] * processes, (folder / "parts.log").read_text()[-3000:]
    last = "stage_3_student" if method == "STAC" else "."
    found = differences(state_of(whole / last), state_of(parts / last))
    assert not found, "\n".join(found[:20])
    assert state_of(parts / last)["meta"]["iter"] == STEPS
    if method != "supervised":
        assert any(line.get("unsup_loss_cls") for line in state_of(parts / last)["lines"])


def last(work_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(work_dir / "checkpoints" / "last.pth", weights_only=True)
    return content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(
    registered: None, number: int, tmp_path: Path
) -> None:
    config = write_config(tmp_path, "FixMatch", workers=1)
    run = tmp_path / "run"
    assert live(config, run, Kill("step", 6, number=number, rank=1), world=2) == [75, 75]
    assert last(run)["meta"]["iter"] in (6, 7)  # the step of the signal, or the next
    if number == signal.SIGTERM:
        assert live(config, run, world=2) == [0, 0]
        assert live(config, tmp_path / "whole", world=2) == [0, 0]
        assert not differences(state_of(tmp_path / "whole"), state_of(run))


def test_a_signal_in_a_validation_of_two_processes_leaves_it(registered: None, tmp_path: Path) -> None:
    config = write_config(tmp_path, "supervised", val_size=12)
    run = tmp_path / "run"
    # The dry run before training predicts once for each network; the third is within the validation.
    assert live(config, run, Kill("validation", 4, number=signal.SIGTERM, rank=1), world=2) == [75, 75]
    assert last(run)["meta"]["iter"] == 15
    assert "validated_iter" not in last(run)["message_hub"]["runtime_info"]


def test_a_second_signal_ends_at_once_and_the_last_checkpoint_is_whole(
    registered: None, tmp_path: Path
) -> None:
    config = write_config(tmp_path, "supervised")
    run = tmp_path / "run"
    assert live(config, run, Kill("step", 7, number=signal.SIGTERM, times=2)) == [-signal.SIGTERM]
    assert last(run)["meta"]["iter"] == 4


def test_accumulated_gradients_are_never_cut(registered: None, tmp_path: Path) -> None:
    """Neither by a checkpoint that is due nor by a signal: both wait for the optimizer's step."""
    config = write_config(tmp_path, "supervised", accumulate=3)
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert live(config, run, Kill("forward", 5, number=signal.SIGTERM)) == [75]
    assert last(run)["meta"]["iter"] == 6
    assert live(config, run, Kill("forward", 8)) == [-9]
    assert last(run)["meta"]["iter"] in (9, 12)  # due at 8 and at 12; the second may be under way
    assert live(config, run) == live(config, whole) == [0]
    assert not differences(state_of(whole), state_of(run))


def test_one_process_goes_on_where_two_have_been(registered: None, tmp_path: Path) -> None:
    config = write_config(tmp_path, "FixMatch")
    run = tmp_path / "run"
    assert live(config, run, Kill("step", 10), world=2)[0] == -9
    assert live(config, run) == [0]
    said = re.search(
        r"iteration (\d+) becomes (\d+), at (\d+) images seen", (tmp_path / "run.log").read_text()
    )
    assert said is not None
    # The checkpoint of 8 may have been under way.
    assert tuple(int(each) for each in said.groups()) in ((4, 8, 32), (8, 16, 64))
    assert last(run)["meta"]["iter"] == STEPS
    assert last(run)["meta"]["size"]["world_size"] == 1
