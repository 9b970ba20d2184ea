"""Reads a run's JSON files and checks what a report uses of them, so that a broken one is named."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssod.errors import UserError

Record = dict[str, Any]
LARGEST = 1e15  # beyond it a number means nothing here, and arithmetic may fail


def is_number(value: object) -> bool:
    """Whether a value is a finite number, no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def _is_whole(value: object) -> bool:
    return is_number(value) and isinstance(value, int)


def _is_count(value: object) -> bool:
    return is_number(value) and isinstance(value, int) and value >= 0


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_stages(value: object) -> bool:
    """Whether a value lists stages: each with a name, and iterations where it trained."""
    return isinstance(value, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("name"), str)
        and (each.get("iterations") is None or _is_count(each["iterations"]))
        for each in value
    )


def _are_metrics(value: object) -> bool:
    """Whether a value holds numbers, or null, by network and metric."""
    return isinstance(value, dict) and all(
        isinstance(numbers, dict) and all(each is None or is_number(each) for each in numbers.values())
        for numbers in value.values()
    )


# {a key, a dot before an inner one: (what its value must be, whether it may be null or missing)}
RESULT: dict[str, tuple[Any, bool]] = {
    "status": (_is_text, False),
    "method": (_is_text, False),
    "seed": (_is_whole, True),
    "iterations": (_is_count, False),
    "world_size": (_is_count, True),
    "seconds": (is_number, True),
    "config": (_is_text, True),
    "git": (_is_text, True),
    "error": (_is_text, True),
    "stages": (_are_stages, True),
    "metrics": (_are_metrics, False),
    "batch": (dict, False),
    "batch.labeled": (_is_count, True),
    "batch.unlabeled": (_is_count, True),
    "split": (dict, False),
    "split.protocol": (_is_text, True),
    "split.percent": (is_number, True),
    "split.fold": (_is_whole, True),
    "split.num_labeled": (_is_count, True),
    "split.ids_sha256": (_is_text, True),
    "test": (dict, False),
    "test.score_thr": (is_number, True),
    "test.evaluator": (_is_text, True),
}
PLACE: dict[str, tuple[Any, bool]] = {"sweep": (_is_text, True), "axes": (dict, True)}  # of run.json


def read_json(path: Path) -> Record:
    """The object in a file; UserError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(path, " ".join(str(error).split())) from None
    if not isinstance(content, dict):
        raise _broken(path, "no object")
    return content


def check(path: Path, content: Mapping[str, Any], shape: Mapping[str, tuple[Any, bool]]) -> None:
    """Raises UserError for a value of another kind than the shape says."""
    for name, (kind, optional) in shape.items():
        outer, _, inner = name.partition(".")
        holder = content[outer] if inner else content
        value = holder.get(inner or outer)
        if value is None and optional:
            continue
        if not (isinstance(value, kind) if isinstance(kind, type) else kind(value)):
            has = (inner or outer) in holder
            raise _broken(path, f"{name} is {value!r:.60}" if has else f"no {name}")


def read_lines(path: Path) -> Iterator[Record]:
    """The objects with an iteration in a file of lines; a half-written line is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and is_number(content.get("iteration")):
            yield content


def _broken(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is broken ({reason}): remove it, or leave its run out")
