"""The resolved config.py that a run writes: numbers that can be read again; a reader that runs nothing."""

import ast
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_NUMBERS = {"inf": float("inf"), "nan": float("nan")}  # mmengine alone writes them as names
_CALLS = {f"float('{name}')": float(name) for name in ("inf", "-inf", "nan")}  # we write calls


class _Called(float):
    """A number that is no literal: inf, nan."""

    def __repr__(self) -> str:
        return f'float("{float(self)}")'


def readable(value: Any) -> Any:
    """The value, which prints as Python that gives it again."""
    if isinstance(value, Mapping):
        return {key: readable(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(readable(each) for each in value)
    return _Called(value) if isinstance(value, float) and not math.isfinite(value) else value


class NotDataError(ValueError):
    """What a file holds that is more than `name = literal`, or why it can't be read."""


def read_written(path: Path) -> dict[str, Any]:
    """The variables of a run's own config; NotDataError for a file that is no such thing."""
    try:
        found = {}
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            # The text at the top is a comment of whoever wrote the file.
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue
            if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
                raise ValueError(f"line {statement.lineno} is no assignment")
            found[statement.targets[0].id] = _value(statement.value)
    except (OSError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise NotDataError(" ".join(str(error).split())) from None
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
