"""Reads the resolved config.py of a run as data, without executing it, and flattens it to options."""

import ast
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssod.errors import UserError

Options = dict[str, Any]  # "model.method.unsup_weight" -> a number, a string, a list of such, ...
_NUMBERS = {"inf": float("inf"), "nan": float("nan")}  # mmengine writes them as names

_CALLS = {f"float('{name}')": float(name) for name in ("inf", "-inf", "nan")}  # a sweep writes calls

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
    """The variables of a dumped config; UserError for what is more than `name = literal`."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = {}
        for statement in tree.body:
            if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
                raise ValueError(f"line {statement.lineno} is no assignment")
            found[statement.targets[0].id] = _value(statement.value)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"config {path} can't be read as data ({reason}): put back the config.py that the run wrote"
        ) from None
    return found


def _value(node: ast.expr) -> Any:
    """What a literal, a `dict(...)` call or a container of such stands for; ValueError for anything else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List):
        return [_value(each) for each in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(each) for each in node.elts)
    if isinstance(node, ast.Set):
        return {_value(each) for each in node.elts}
    if isinstance(node, ast.Dict):
        return _pairs((key, value) for key, value in zip(node.keys, node.values, strict=True))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        # dict({...}, a=1): mmengine writes names that are no identifiers so.
        inner = [(None, each) for each in node.args]
        return _pairs(iter([*inner, *((each.arg, each.value) for each in node.keywords)]))
    if isinstance(node, ast.Call) and ast.unparse(node) in _CALLS:
        return _CALLS[ast.unparse(node)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand)
        if isinstance(number, (int, float)):
            return -number
    elif isinstance(node, ast.Name) and node.id in _NUMBERS:
        return _NUMBERS[node.id]
    raise ValueError(f"line {node.lineno} holds more than data: {ast.unparse(node)[:60]}")


def _pairs(pairs: Iterator[tuple[ast.expr | str | None, ast.expr]]) -> dict[Any, Any]:
    """A dict of keys and values; `**{...}` and `dict({...})`, without a key, are taken in."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key is None:
            more = _value(value)
            if not isinstance(more, dict):
                raise ValueError(f"line {value.lineno}: {ast.unparse(value)[:60]} is no dict")
            found |= more
        else:
            found[key if isinstance(key, str) else _value(key)] = _value(value)
    return found


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
