"""What a row is called: its method, and what tells it from the other rows of its method and section."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from ssod.study.report.literal import show
from ssod.study.report.sections import Row

# In the order of a table: from the simplest to the most elaborate.
METHODS = {
    "supervised": "Supervised",
    "MeanTeacher": "Mean Teacher",
    "FixMatch": "FixMatch",
    "STAC": "STAC",
    "UnbiasedTeacher": "Unbiased Teacher",
    "SoftTeacher": "Soft Teacher",
}
MOST_OPTIONS = 3  # in a label; a sweep's axes, which somebody chose, are all named
_OF_SECTION = ("method", "dataset", "percent", "protocol")  # axes that a label does not repeat


def method_name(row: Row) -> str:
    """The method as a sweep calls it, else as the papers do."""
    method = row.first.result["method"]
    named = str(row.first.axes.get("method", method))
    plain = {name.lower(): shown for name, shown in METHODS.items()}
    return plain.get(named.replace("_", "").lower(), named)


def label_rows(rows: Sequence[Row]) -> None:
    """Gives every row its label, and sorts them: section, method, label. Labels of a section are unique."""
    places = {section: place for place, section in enumerate(dict.fromkeys(row.section for row in rows))}
    together: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        together[(row.section, method_name(row))].append(row)
    for (_, name), group in together.items():
        for row, words in zip(group, _words(group), strict=True):
            row.label = ", ".join([name, *words])
    _tell_apart(rows)
    order = list(METHODS)
    rows_sorted = sorted(
        rows,
        key=lambda row: (
            places[row.section],
            order.index(row.first.result["method"]) if row.first.result["method"] in order else len(order),
        ),
    )
    rows[:] = rows_sorted  # type: ignore[index]


def _tell_apart(rows: Sequence[Row]) -> None:
    """Adds to labels that a section has twice their sweeps, or where these are not enough a run's name."""
    alike: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        alike[(row.section, row.label)].append(row)
    for group in (each for each in alike.values() if len(each) > 1):
        sweeps = [row.first.place.get("sweep") or row.first.name for row in group]
        unique = len(set(sweeps)) == len(group)
        for row, sweep in zip(group, sweeps, strict=True):
            row.label = f"{row.label} ({sweep if unique else row.first.name})"


def _words(group: Sequence[Row]) -> list[list[str]]:
    """For each row of one method: the axes, or else the options, in which the rows differ.

    Of many options the names of the config files say more, where these differ.
    """
    if len(group) == 1:
        return [[]]
    if all(row.first.axes for row in group):
        axes = [{k: show(v) for k, v in row.first.axes.items() if k not in _OF_SECTION} for row in group]
        return [_text(each, _differing(axes), most=len(each)) for each in axes]
    options = [row.first.telling for row in group]
    keys = _differing(options)
    files = [PurePath(str(row.first.result.get("config"))).stem for row in group]
    if len(keys) > MOST_OPTIONS and len(set(files)) == len(files):
        return [[file] for file in files]
    return [_text(each, keys) for each in options]


def _differing(values: Sequence[dict[str, str]]) -> list[str]:
    """The keys whose values are not the same in all, the nearest to the root first."""
    keys = list(dict.fromkeys(key for each in values for key in each))
    differing = [key for key in keys if len({each.get(key) for each in values}) > 1]
    return sorted(differing, key=lambda key: (not key.startswith("model.method"), key.count(".")))


def _text(values: dict[str, str], keys: Sequence[str], most: int = MOST_OPTIONS) -> list[str]:
    """`name=value` of what a row has of the keys; only the first few of very many."""
    has = [key for key in keys if key in values]
    words = [f"{short(key, keys)}={values[key]}" for key in has[:most]]
    more = len(has) - most
    return [*words, f"{more} more options"] if more > 0 else words


def short(key: str, keys: Sequence[str]) -> str:
    """The shortest end of a dotted name that no other of the names ends with."""
    parts = key.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if not any(other != key and f".{other}".endswith(f".{end}") for other in keys):
            return end
    return key
