"""Errors of memory, disk, workers and other processes become one line each; all others stay as they are."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssod.engine.faults import failure_kinds
from ssod.engine.faults.failure_kinds import SHARED_MEMORY, is_lost_contact
from ssod.engine.faults.failures import explain, known_failures
from ssod.errors import RunError, UserError

CONFIG = dict(train_dataloader=dict(num_workers=4, sampler=dict(counts=(2, 4))))


def runner(config: Any = None) -> Any:
    return SimpleNamespace(iter=12, cfg=CONFIG if config is None else config)


def raised(work: Callable[[], Any]) -> Exception:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def os_error(number: int, file: Any = None) -> OSError:
    return OSError(number, os.strerror(number), file and str(file))


CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.5 GiB"
)
KILLED = "DataLoader worker (pid 4711) is killed by signal: Killed. "
BUS = (
    "DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that dataloader's workers "
    "are out of shared memory. Please try to raise your shared memory limit."
)
IN_WORKER = (
    "Caught OSError in DataLoader worker process 1.\nOriginal Traceback ...\nOSError: [Errno 28] No space"
)
GLOO = "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711"
WRITER = "[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"
FULL = (
    r"disk is full at iteration 12, writing \S*/metrics.jsonl \(No space left on device; \d+ of \d+ MiB free"
)
MMAP = "unable to mmap 76800 bytes from file </torch_1_2>: Cannot allocate memory (12)"

ROWS: dict[str, tuple[Callable[[Path], BaseException], str]] = {
    "gpu": (
        lambda out: torch.cuda.OutOfMemoryError(CUDA),
        r"out of GPU memory at iteration 12, which has no 2.50 GiB left: use fewer images per process "
        r"\(--scale-to 1x1\+2 instead of 1x2\+4\), --amp, or a smaller scale",
    ),
    "gpu, as a plain error": (
        lambda out: RuntimeError("CUDA error: out of memory"),
        "out of GPU memory at iteration 12: use fewer images",
    ),
    "torch on the host": (
        lambda out: raised(lambda: torch.empty(1 << 50, dtype=torch.uint8)),
        r"out of host memory at iteration 12: reserve more \(SLURM: --mem\), use fewer loader workers "
        r"\(train_dataloader.num_workers=2 instead of 4\), or fewer images",
    ),
    "numpy on the host": (lambda out: raised(lambda: np.empty(1 << 50, np.uint8)), "out of host memory"),
    "no memory to fork": (lambda out: os_error(errno.ENOMEM), "out of host memory at iteration 12"),
    "numpy in a worker": (
        lambda out: RuntimeError("Caught _ArrayMemoryError in DataLoader worker process 0.\nOriginal ..."),
        "out of host memory",
    ),
    "killed worker": (
        lambda out: RuntimeError(KILLED),
        r"loader worker \(pid 4711\) was killed by signal: Killed at iteration 12.*num_workers=2 instead",
    ),
    "ended worker": (
        lambda out: RuntimeError("DataLoader worker (pid(s) 47, 11) exited unexpectedly"),
        r"loader worker \(pid 47, 11\) ended unexpectedly at iteration 12",
    ),
    "bus error": (lambda out: RuntimeError(BUS), f"shared memory {SHARED_MEMORY} .* is full .*--shm-size"),
    "shared memory": (
        lambda out: RuntimeError(MMAP),
        f"shared memory {SHARED_MEMORY} .* is full",
    ),
    "shared memory, by its file": (
        lambda out: os_error(errno.ENOSPC, f"{SHARED_MEMORY}/torch_1"), "shared memory .* is full",
    ),
    "open files": (lambda out: RuntimeError("received 0 items of ancdata"), "too many open files.*ulimit -n"),
    "full disk": (lambda out: os_error(errno.ENOSPC, out / "metrics.jsonl"), FULL),
    "full disk, no file named": (
        lambda out: os_error(errno.ENOSPC), r"the disk is full at iteration 12, writing \S+/run \(No space",
    ),
    "full disk in a worker": (lambda out: OSError(IN_WORKER), "the disk is full at iteration 12"),
    "quota": (
        lambda out: os_error(errno.EDQUOT, out / "x"),
        r"the disk takes no more at iteration 12.*\(Disk quota exceeded;.*raise the quota",
    ),
    "torch's writer": (lambda out: RuntimeError(WRITER), "the disk takes no more .*writing failed"),
    "read-only": (
        lambda out: os_error(errno.EROFS, out / "x.pth"),
        r"work dir \S+/run can't be written at iteration 12, \S+/x.pth \(Read-only file system\)",
    ),
    "no permission": (lambda out: os_error(errno.EACCES, out / "x"), r"can't be .*\(Permission denied\)"),
    "vanished file": (lambda out: os_error(errno.ENOENT, out / "a/b"), r"/a/b is gone at iteration 12"),
    "silent disk": (lambda out: os_error(errno.ESTALE, "/data/x"), r"the disk of /data/x does not answer"),
    "gloo": (lambda out: RuntimeError(GLOO), r"lost contact with another process .*\(.*closed by peer"),
    "the store": (
        lambda out: torch.distributed.DistStoreError("wait timeout after 300000ms, keys: /x"), "lost contact",
    ),
}  # fmt: skip


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    return tmp_path / "run"


@pytest.mark.parametrize("name", ROWS)
def test_what_is_said(out: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in ("gloo", "the store"):  # alone there is nobody to lose
        monkeypatch.setattr(failure_kinds, "get_world_size", lambda: 2)
    make, expected = ROWS[name]
    with pytest.raises(RunError, match=expected) as caught, known_failures(out, runner()):
        raise make(out)
    assert str(caught.value).endswith("; no checkpoint was written before") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), RuntimeError("shape mismatch"), os_error(errno.ENOENT, "/elsewhere"), KeyError("loss")],
)
def test_other_errors_stay_as_they_are(out: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, known_failures(out, runner()):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("kind", [UserError, RunError])
def test_what_is_one_line_already_passes(out: Path, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^out of words$"), known_failures(out, runner()):
        raise kind("out of words") from MemoryError()


def test_the_cause_is_found_below_other_errors(out: Path) -> None:
    """torch's writer hides the disk's error behind its own."""
    try:
        try:
            raise os_error(errno.ENOSPC, out / "metrics.jsonl")
        finally:
            raise ValueError("at closing")
    except ValueError as error:
        assert "the disk is full" in str(explain(error, out, runner()))
        hidden = ValueError("another")
        hidden.__context__, hidden.__suppress_context__ = error, True
        assert explain(hidden, out, runner()) is None


def test_torchs_writer_is_told_apart_by_what_it_met(out: Path) -> None:
    error = RuntimeError(WRITER)
    error.__context__ = os_error(errno.ENOSPC)
    assert "the disk is full at iteration 12" in str(explain(error, out, runner()))


def test_the_checkpoint_is_read_before_it_is_praised(out: Path) -> None:
    last = out / "checkpoints/last.pth"
    torch.save({"state_dict": {}, "meta": {"iter": 34}}, last)
    said = f"; checkpoint {last} of iteration 34 is intact: run again with --resume"
    assert str(explain(MemoryError(), out, runner())).endswith(said)
    last.write_bytes(last.read_bytes()[:50])
    assert "can't be read" in str(explain(MemoryError(), out, runner()))


def test_a_work_dir_that_is_gone(tmp_path: Path) -> None:
    said = explain(os_error(errno.ENOENT, tmp_path / "run/x"), tmp_path / "run", runner())
    assert said is not None and "/run is gone at iteration 12" in said
    assert said.endswith("its checkpoints went with it")


def test_before_training_and_with_other_configs(out: Path) -> None:
    assert "memory before training:" in str(explain(MemoryError(), out))
    small = dict(train_dataloader=dict(num_workers=0, sampler=dict(counts=(1, 1))))
    said = str(explain(torch.cuda.OutOfMemoryError("CUDA out of memory."), out, runner(small)))
    assert "(--scale-to, such as 8x1+2)" in said
    assert "(train_dataloader.num_workers)" in str(explain(MemoryError(), out, runner(small)))


def test_lost_contact_is_told_from_a_closed_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_lost_contact(RuntimeError(GLOO))  # a process alone
    monkeypatch.setattr(failure_kinds, "get_world_size", lambda: 2)
    assert is_lost_contact(RuntimeError(GLOO))
    assert not is_lost_contact(BrokenPipeError(errno.EPIPE, "Broken pipe"))
