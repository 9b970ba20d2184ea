"""Numbers of a config that nothing can be done with: a line for each, before anything is built."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from ssod.engine.loading import LOADERS

SEEDS = 2**32  # NumPy takes no larger one


def length_faults(config: Config) -> Iterator[str]:
    """A line where `train_cfg` has a length or an interval that is no whole number of at least 1."""
    train = config.get("train_cfg") or {}
    for name in ("max_iters", "val_interval"):
        if name in train and not (_is_number(train[name]) and train[name] >= 1 and train[name] % 1 == 0):
            yield f"train_cfg.{name} is {train[name]!r}: give a whole number of at least 1"


def number_faults(config: Config) -> Iterator[str]:
    """A line for each number that can't be one: seed, rate, clipping, interval, schedules, loader workers."""
    seed = (config.get("randomness") or {}).get("seed")
    if seed is not None and (type(seed) is not int or not 0 <= seed < SEEDS):
        yield f"the seed (--seed, randomness.seed) is {seed!r}: give a whole number from 0 to {SEEDS - 1}"
    wrapper = config.get("optim_wrapper") or {}
    optimizer = wrapper.get("optimizer")
    for name in ("lr", "momentum", "weight_decay"):
        value = optimizer.get(name, 0.0) if isinstance(optimizer, Mapping) else 0.0
        if not _is_number(value) or value < 0:
            yield f"optim_wrapper.optimizer.{name} is {value!r}: give a number of at least 0, such as 0.01"
    if (config.get("auto_scale_lr") or {}).get("enable"):
        yield (
            "auto_scale_lr scales the rate alone, and too late for the schedules: leave it out; "
            "tools/train.py --scale-to WORLDxLABELED+UNLABELED scales the whole recipe (docs/cluster.md)"
        )
    clip = wrapper.get("clip_grad")
    if clip is not None and not isinstance(clip, Mapping):
        yield f"optim_wrapper.clip_grad is {clip!r}: give dict(max_norm=10.0), say, or None"
    counted = {"optim_wrapper.accumulative_counts": wrapper.get("accumulative_counts", 1)}
    scalars = (config.get("default_hooks") or {}).get("scalars") or {}
    counted["default_hooks.scalars.interval"] = scalars.get("interval", 1)
    for name, value in counted.items():
        if not _is_whole(value) or value < 1:
            yield f"{name} is {value!r}: give a whole number of at least 1"
    yield from _scheduler_faults(config)
    for name in LOADERS:
        workers = (config.get(name) or {}).get("num_workers")
        if workers is not None and (not _is_whole(workers) or workers < 0):
            yield f"{name}.num_workers is {workers!r}: give a whole number of at least 0"


def _scheduler_faults(config: Config) -> Iterator[str]:
    """A line where a schedule begins or ends at what is no iteration."""
    given = config.get("param_scheduler") or []
    for place, one in enumerate([given] if isinstance(given, Mapping) else given):
        for name in ("begin", "end"):
            value = one.get(name, 0)
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                yield f"param_scheduler.{place}.{name} is {value!r}: give an iteration, or leave it out"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
