"""A run's own config.py, read as data: nothing in it is executed."""

import ast
from pathlib import Path
from typing import Any

NAME = "config.py"

_PARTS = (
    *(ast.Module, ast.Assign, ast.Name, ast.Store, ast.Load, ast.Constant, ast.UnaryOp, ast.USub),
    *(ast.Dict, ast.List, ast.Tuple, ast.Set, ast.Call, ast.keyword),
)
# What mmengine writes beside literals, and a sweep: dict(lr=1), inf, float('inf').
_NAMES: dict[str, Any] = {"dict": dict, "float": float, "inf": float("inf"), "nan": float("nan")}


def read_dumped(work_dir: Path) -> dict[str, Any] | None:
    """The config that a run wrote to its work dir; None without one that holds `name = literal` alone."""
    try:
        tree = ast.parse((work_dir / NAME).read_text(encoding="utf-8"))
        if not all(_is_data(node) for node in ast.walk(tree)):
            return None
        found: dict[str, Any] = {}
        exec(compile(tree, NAME, "exec"), {"__builtins__": {}, **_NAMES}, found)
    except (OSError, ValueError, SyntaxError, TypeError, NameError, RecursionError, MemoryError):
        return None
    return found


def _is_data(node: ast.AST) -> bool:
    """Whether a part of a file belongs to a literal, to `dict(...)` or `float(...)`, or to `name = `."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("dict", "float")
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return node.id in _NAMES
    return isinstance(node, _PARTS)
