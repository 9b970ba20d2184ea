"""How batches come to the device: how many loader workers, pinned memory, copies beside the running step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ssod.core.image_stack import ImageStack

MOST_WORKERS = 8  # of one process; more rarely pay, and each holds batches in shared memory
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """How many cores this process may use, at least 1: those it may run on, or its container's share.

    cgroups: where the container's limit stands, of version 2 or 1 (tests give another place).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _limit_of(cgroups)
    return max(cores if limit is None else min(cores, int(limit)), 1)


def _limit_of(cgroups: Path) -> float | None:
    """The cores that a container may keep busy; None where nothing limits them."""
    try:
        words = (cgroups / "cpu.max").read_text().split()
    except OSError:
        try:
            words = [
                (cgroups / "cpu" / name).read_text().strip()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            ]
        except OSError:
            return None
    try:
        quota, period = float(words[0]), float(words[1])
    except (ValueError, IndexError):  # "max": no limit
        return None
    return quota / period if quota > 0 and period > 0 else None


def default_workers(cores: int, environment: Mapping[str, str] = os.environ) -> int:
    """The loader workers of a process where the config says nothing: its cores but one, 1 to MOST_WORKERS.

    A machine's cores are shared by the processes that torchrun has started on it (LOCAL_WORLD_SIZE). SLURM
    says how many cores each of its tasks has (SLURM_CPUS_PER_TASK).
    """
    task = environment.get("SLURM_CPUS_PER_TASK", "")
    if task.isdigit() and "LOCAL_WORLD_SIZE" not in environment:
        share = min(cores, int(task))
    else:
        share = cores // max(int(environment.get("LOCAL_WORLD_SIZE") or 1), 1)
    return min(max(share - 1, 1), MOST_WORKERS)


def choose_workers(config: Config) -> None:
    """Gives each loader without `num_workers` as many as fit, which stay from one validation to the next.

    Where there are none, none stay: torch would refuse `persistent_workers`.
    """
    for loader in _loaders(config):
        if loader.get("num_workers") is None:
            loader["num_workers"] = default_workers(usable_cores())
            loader.setdefault("persistent_workers", True)
        elif not loader["num_workers"] and loader.get("persistent_workers"):
            loader["persistent_workers"] = False


def pin_batches(config: Config) -> None:
    """Has loaders put batches where a GPU can fetch them by itself, unless the config says otherwise."""
    for loader in _loaders(config):
        loader.setdefault("pin_memory", True)


def _loaders(config: Config) -> Iterator[Any]:
    """The configs of the loaders that there are."""
    return (config[name] for name in LOADERS if config.get(name))


def beside_the_step(batches: Iterator[Any], device: torch.device, cuda: Any = torch.cuda) -> Iterator[Any]:
    """A loader's batches with their image stacks on a CUDA device; on others, as they are.

    The host launches a step and asks for the next batch while the device still computes. A copy in the same
    stream would wait for all of that step; on a stream of its own it runs beside it, and only what is
    launched afterwards waits for the copy. Nothing is taken from the loader before it is asked for, so
    resumed runs and errors find everything as without. cuda: torch.cuda, or a stand-in.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = cuda.Stream(device)
    for batch in batches:
        with cuda.stream(copies):
            moved = _moved(batch, device)
        computing = cuda.current_stream(device)
        computing.wait_stream(copies)
        for stack in _stacks(moved):
            # Its memory belongs to the other stream, which must not have it again before the step is over.
            stack.pixels.record_stream(computing)
        yield moved


def _moved(batch: Any, device: torch.device) -> Any:
    """A batch with its views' stacks on the device; all else as it is."""
    if not isinstance(batch, Mapping):
        return batch
    return {
        name: part.to(device) if isinstance(part, ImageStack) else _moved(part, device)
        for name, part in batch.items()
    }


def _stacks(batch: Any) -> Iterator[ImageStack]:
    """The stacks of a batch's views."""
    views = batch.values() if isinstance(batch, Mapping) else ()
    found = (view.get("inputs") for view in views if isinstance(view, Mapping))
    return (stack for stack in found if isinstance(stack, ImageStack))
