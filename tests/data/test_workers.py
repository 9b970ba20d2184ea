"""Loader workers and signals: deaf to those of the whole job, obedient to their parent, gone with it."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ssod.data.workers import SteadyWorker

SECONDS = 60  # until something that must happen counts as not happening


class Items(Dataset[Any]):
    """Numbers; a stuck one never comes."""

    def __init__(self, stuck: bool = False) -> None:
        self.stuck = stuck

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> torch.Tensor:
        while self.stuck:
            time.sleep(1)
        return torch.tensor(index)


def loading(first: Callable[[int], Any] | None = None, stuck: bool = False) -> Iterator[Any]:
    """An iterator over a loader with two workers, both ready where they aren't stuck."""
    loader = DataLoader(Items(stuck), batch_size=1, num_workers=2, worker_init_fn=SteadyWorker(first))
    iterator = iter(loader)
    if not stuck:
        next(iterator), next(iterator)
    return iterator


def workers(iterator: Any) -> list[int]:
    return [process.pid for process in iterator._workers]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def waits_for_signals(pid: int) -> bool:
    """Whether a worker has made itself deaf: its thread for SIGTERM is there."""
    return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def send_from_elsewhere(number: int, pids: list[int]) -> None:
    """Sends a signal as SLURM or a terminal would: the sender is not the workers' parent."""
    child = os.fork()
    if child == 0:
        for pid in pids:
            os.kill(pid, number)
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM])
def test_signals_of_the_job_change_nothing(number: int) -> None:
    iterator = loading()
    for _ in range(3):
        send_from_elsewhere(number, workers(iterator))
        values = [int(next(iterator)) for _ in range(20)]  # more than was loaded before the signal
    assert values == list(range(42, 62))
    assert all(map(is_alive, workers(iterator)))


def test_without_it_a_job_s_sigterm_takes_the_workers_away() -> None:
    # Texts: a tensor would be fetched from the worker by a socket, and fail in another way if it just died.
    iterator = iter(DataLoader(Items(), batch_size=1, num_workers=2, collate_fn=str))
    next(iterator)
    with pytest.raises(RuntimeError, match=r"DataLoader worker .* (killed by signal|exited unexpectedly)"):
        send_from_elsewhere(signal.SIGTERM, workers(iterator))
        for _ in range(20):
            next(iterator)


def test_a_stuck_worker_obeys_its_parent_s_first_sigterm() -> None:
    iterator: Any = loading(stuck=True)
    pids = workers(iterator)
    until(lambda: all(map(waits_for_signals, pids)))
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not any(map(is_alive, pids)))
    for process in iterator._workers:
        process.join()
        assert process.exitcode == 0  # anything else makes torch raise in the parent


def test_workers_end_with_a_killed_parent() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        iterator = loading()
        os.write(writing, " ".join(map(str, workers(iterator))).encode())
        time.sleep(SECONDS)
        os._exit(1)
    pids = [int(word) for word in os.read(reading, 100).split()]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(pids) == 2
    until(lambda: not any(map(is_alive, pids)))


def test_the_kernel_is_asked_to_end_a_worker_with_its_parent(tmp_path: Path) -> None:
    """At once, that is: torch's own watch looks every 5 s, and the work dir's lock is held until then."""
    child = os.fork()
    if child == 0:
        SteadyWorker()(0)
        answer = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(answer))  # PR_GET_PDEATHSIG
        os._exit(answer.value)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == signal.SIGKILL


class Unsendable:
    """Nothing that can leave its process."""

    def __reduce__(self) -> Any:
        raise RuntimeError("unable to allocate shared memory")


def test_a_batch_that_cannot_be_handed_over_is_an_error() -> None:
    """Not a wait for ever."""
    loader = DataLoader(
        [Unsendable()], batch_size=1, num_workers=1, collate_fn=list, worker_init_fn=SteadyWorker()
    )
    with pytest.raises(RuntimeError, match="unable to allocate shared memory"):
        next(iter(loader))


def test_the_worker_is_seeded_as_before(tmp_path: Path) -> None:
    def note(worker: int) -> None:
        (tmp_path / str(worker)).touch()

    loading(note)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}


def test_a_runner_s_loaders_have_such_workers(registered: None) -> None:
    from ssod.engine.runner import SemiRunner

    config = dict(batch_size=1, num_workers=2, sampler=dict(type="DefaultSampler", shuffle=False))
    loader = SemiRunner.build_dataloader({**config, "dataset": Items()}, seed=3)
    steady = loader.worker_init_fn
    assert isinstance(steady, SteadyWorker)
    assert steady.first.keywords == {"num_workers": 2, "rank": 0, "seed": 3,
                                     "disable_subprocess_warning": False}  # fmt: skip
    assert SemiRunner.build_dataloader(loader) is loader and loader.worker_init_fn is steady
