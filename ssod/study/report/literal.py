"""The resolved config of a run, flattened to options, and which of these its result depends on."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssod.errors import UserError
from ssod.written_config import NotDataError, read_written

Options = dict[str, Any]  # "model.method.unsup_weight" -> a number, a string, a list of such, ...

# What a result depends on; the rest of a config says how often a run is looked at, and where it runs.
_ROOTS = (
    "model",
    "train_dataloader",
    "val_dataloader",
    "val_evaluator",
    "optim_wrapper",
    "param_scheduler",
    "train_cfg",
    "load_from",
    "stages",
    "data_policy",
    "custom_hooks",
    "randomness",
)
# ... of which these don't count: where data lie and who reads them, the seed, and the images that are
# labeled, which result.json names by their hash.
_NO_OPTION = re.compile(
    r"(^|\.)(data_root|num_workers|persistent_workers|pin_memory|prefetch_factor|fused|foreach|seed"
    r"|only_ids|except_ids)$|^train_cfg\.val_interval$"
)
_FOLD = re.compile(r"\.\d+@")  # instances_train2017.1@10.json


def read_config(path: Path) -> dict[str, Any]:
    """The variables of a run's own config; UserError for what is more than `name = literal`."""
    try:
        return read_written(path)
    except NotDataError as error:
        raise UserError(
            f"config {path} can't be read as data ({error}): put back the config.py that the run wrote"
        ) from None


def flatten(value: Any, name: str = "") -> Options:
    """`{"model.method.type": "FixMatch", ...}`: each value under its path; a list without dicts is one value.

    Variables that only help to write a config (`_labeled`) are left out: what they are used for is there.
    """
    if isinstance(value, Mapping) and value:
        inner: Iterator[tuple[Any, Any]] = iter(value.items())
    elif isinstance(value, (list, tuple)) and any(_has_dict(each) for each in value):
        inner = iter(enumerate(value))
    else:
        return {name: value}
    found: Options = {}
    for key, each in inner:
        if name or not str(key).startswith("_"):
            found |= flatten(each, f"{name}.{key}" if name else str(key))
    return found


def _has_dict(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, (list, tuple)) and any(_has_dict(each) for each in value)
    )


def telling(options: Options) -> dict[str, str]:
    """The options on which a result depends, as text, equal for runs that differ in seed and fold alone."""
    found = {}
    for name, value in options.items():
        if name.split(".", 1)[0] in _ROOTS and not _NO_OPTION.search(name):
            found[name] = _plain(name, value)
    return found


def _plain(name: str, value: Any) -> str:
    """The value as text: of annotation files and absolute paths the last name, with any fold as `*`."""
    if isinstance(value, str):
        if name.endswith("ann_file") or os.path.isabs(value):
            value = os.path.basename(value.rstrip("/"))
        return _FOLD.sub(".*@", value) if name.endswith("ann_file") else value
    return show(value)


def show(value: Any) -> str:
    """An option's value as a reader writes it; strings without quotes."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(show(each) for each in value)}]"
    return value if isinstance(value, str) else repr(value)
