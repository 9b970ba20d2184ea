"""What a sweep file's names may hold: mistakes of type, found before anything is made of them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ssod.errors import UserError


def _is_number(value: Any, lowest: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value < math.inf


def _is_whole(value: Any, lowest: int) -> bool:
    return isinstance(value, int) and _is_number(value, lowest)


def _is_named(value: Any) -> bool:
    """Whether it is a dict whose keys are texts."""
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_entry(value: Any) -> bool:
    """Whether it says which config a method has."""
    if not isinstance(value, Mapping):
        return isinstance(value, str)
    known = set(value) <= {"config", "options"} and isinstance(value.get("config"), str)
    return known and _is_named(value.get("options") or {})


def _is_path_or_options(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and all(map(_is_named, value.values())))


# name -> whether a value will do, and what to give instead.
CONTENT: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda value: isinstance(value, str), "a text"),
    "data": (lambda value: isinstance(value, str), "a text"),
    "configs": (
        lambda value: isinstance(value, str) or _is_named(value),
        "a path, or a dict of method -> path",
    ),
    "supervised": (lambda value: value is None or isinstance(value, str), "a path, or None"),
    "axes": (_is_named, "a dict of axis -> list of values"),
    "runs": (
        lambda value: isinstance(value, list | tuple) and all(map(_is_named, value)),
        "a list of dicts of axis -> value",
    ),
    "options": (_is_named, "a dict of axis -> config option"),
    "cfg_options": (_is_named, "a dict of config option -> value"),
    "iterations": (lambda value: value is None or _is_whole(value, 1), "a whole number of at least 1"),
    "splits": (lambda value: value is None or isinstance(value, Mapping), "a dict, or None"),
    "gpus": (
        lambda value: value is None or _is_whole(value, 1),
        "the number of processes of a run, at least 1",
    ),
    "slurm": (_is_named, "a dict of submitit's parameters"),
}
AXES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "method": (lambda value: isinstance(value, str), "a method's name"),
    "fold": (lambda value: _is_whole(value, 0), "whole numbers"),
    "seed": (lambda value: _is_whole(value, 0), "whole numbers of at least 0"),
    "iterations": (lambda value: _is_whole(value, 1), "whole numbers of at least 1"),
    "unlabeled_ratio": (lambda value: _is_number(value, 0), "numbers"),
}
SPLITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "protocol": (lambda value: isinstance(value, str), "a protocol's name"),
    "annotations": (lambda value: isinstance(value, str), "a path"),
    "seed": (lambda value: _is_whole(value, 0), "a whole number of at least 0"),
    "stratified": (lambda value: isinstance(value, bool), "True or False"),
    "files": (lambda value: isinstance(value, str), "a path with {fold} and {percent}"),
}


def check_content(content: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a name of a sweep file that holds something else than it should."""
    for name, value in content.items():
        _check(CONTENT, name, value, where)
    configs = content["configs"]
    for name, value in configs.items() if isinstance(configs, Mapping) else ():
        if not _is_entry(value):
            raise UserError(
                f"{where}: configs[{name!r}] is {value!r}: give a path, or dict(config=path, options={{...}})"
            )
    for name, value in (content.get("splits") or {}).items():
        _check(SPLITS, name, value, f"{where}: splits")
    for name, known in content.get("options", {}).items():
        texts = isinstance(known, list | tuple) and all(isinstance(each, str) for each in known)
        if not texts and not _is_path_or_options(known):
            raise UserError(
                f"{where}: options.{name} is {known!r}: give a config option, a list of them, or value -> "
                "dict of options"
            )


def check_value(axis: str, value: Any, options: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a value that the axis can't have."""
    if axis not in options:
        _check(AXES, axis, value, f"{where}: axis")
    elif isinstance(options[axis], Mapping) and value not in list(options[axis]):
        raise UserError(f"{where}: options.{axis} does not say what {value!r} is")


def _check(known: Mapping[str, Any], name: str, value: Any, where: str) -> None:
    fits, wanted = known.get(name, (None, ""))
    if fits is not None and not fits(value):
        raise UserError(f"{where}{' ' if where.endswith('axis') else ': '}{name} is {value!r}: give {wanted}")
