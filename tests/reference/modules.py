"""A file as a module: a tool or a conftest, in this process, where its imports are paid once."""

import importlib.util
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


def load(path: Path) -> Any:
    """The file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_tool(name: str) -> Any:
    """`tools/<name>.py` as a module."""
    return load(PROJECT / "tools" / f"{name}.py")
