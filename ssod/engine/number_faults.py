"""Numbers of a config that nothing can be done with: a line for each, before anything is built."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

SEEDS = 2**32  # NumPy takes no larger one


def length_faults(config: Config) -> Iterator[str]:
    """A line where `train_cfg` has a length or an interval that is no whole number of at least 1."""
    train = config.get("train_cfg") or {}
    for name in ("max_iters", "val_interval"):
        if name in train and not (_is_number(train[name]) and train[name] >= 1 and train[name] % 1 == 0):
            yield f"train_cfg.{name} is {train[name]!r}: give a whole number of at least 1"


def number_faults(config: Config) -> Iterator[str]:
    """A line for a seed that can't be one, and for a rate of the optimizer that is no number."""
    seed = (config.get("randomness") or {}).get("seed")
    if seed is not None and (type(seed) is not int or not 0 <= seed < SEEDS):
        yield f"the seed (--seed, randomness.seed) is {seed!r}: give a whole number from 0 to {SEEDS - 1}"
    optimizer = (config.get("optim_wrapper") or {}).get("optimizer")
    for name in ("lr", "momentum", "weight_decay"):
        value = optimizer.get(name, 0.0) if isinstance(optimizer, Mapping) else 0.0
        if not _is_number(value) or value < 0:
            yield f"optim_wrapper.optimizer.{name} is {value!r}: give a number of at least 0, such as 0.01"


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
