"""Rows: runs that differ in seed and fold alone; and what may not be averaged."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ssod.errors import UserError
from ssod.study.report.labels import label_rows
from ssod.study.report.sections import Row, Section, section_of
from ssod.study.results import Run

SHOWN = 3  # names of runs in a message
_TRAINING_FILE = re.compile(r"(^|\.)train_dataloader\..*ann_file$")

# What runs must share to be averaged: {what a message calls it: how it is read from a run}.
SAME: dict[str, Callable[[Run], Any]] = {
    "split protocols": lambda run: run.split.get("protocol"),
    "labeled shares (%)": lambda run: run.split.get("percent"),
    "data": lambda run: section_of(run).dataset,
    "tested files": lambda run: section_of(run).tested_file,
    "labeled images per class": lambda run: section_of(run).per_class,
    "numbers of labeled images": lambda run: section_of(run).num_labeled,
    "test score thresholds": lambda run: run.tested[0],
    "evaluators": lambda run: run.tested[1],
    "iteration counts": lambda run: run.result["iterations"],
    "batch sizes (labeled, unlabeled)": lambda run: run.batch,
}


def make_rows(runs: Sequence[Run]) -> list[Row]:
    """The finished runs in rows, with labels, ordered by section and method.

    Raises UserError for runs of one row that can't be averaged.
    """
    groups: dict[Hashable, list[Run]] = defaultdict(list)
    for run in runs:
        groups[_identity(run)].append(run)
    rows = [Row(section_of(part[0]), part) for group in groups.values() for part in _parts(group)]
    rows.sort(key=lambda row: (_order(row.section), not row.first.is_supervised))
    label_rows(rows)
    for row in rows:
        _check(row.label, row.runs)
        _note_differences(row)
    return rows


def _identity(run: Run) -> Hashable:
    """What the runs of a row have in common: their place in a sweep, else method, config and data."""
    if run.axes:
        axes = tuple(sorted((str(key), str(value)) for key, value in run.axes.items()))
        return "sweep", run.place.get("sweep"), run.result["method"], axes
    section = section_of(run)
    data = replace(section, protocol="")  # by which `_parts` splits, if at all
    written = tuple(sorted(run.telling.items())) or run.result.get("config")
    return "config", run.result["method"], data, written


def _parts(group: list[Run]) -> list[list[Run]]:
    """The group, split by protocol where that was meant: each protocol has the seeds and folds of another.

    Otherwise it is one row, which `_check` will refuse: a run of another protocol slipped in.
    """
    by_protocol: dict[Any, list[Run]] = defaultdict(list)
    for run in group:
        by_protocol[run.split.get("protocol")].append(run)
    draws = [{(run.result["seed"], run.split.get("fold")) for run in part} for part in by_protocol.values()]
    meant = len(draws) > 1 and all(any(one & other for other in draws if other is not one) for one in draws)
    return list(by_protocol.values()) if meant else [group]


def _order(section: Section) -> tuple[Any, ...]:
    """Sections by data, protocol and share."""
    numbers = (section.percent or 0.0, section.per_class or 0, section.num_labeled or 0)
    files = (str(section.tested_file), str(section.labeled_file))
    return str(section.dataset), section.protocol, *numbers, *files


def _check(label: str, runs: Sequence[Run]) -> None:
    """Raises UserError unless the runs may be averaged."""
    for what, read in SAME.items():
        check_same(f'row "{label}"', what, runs, read)
    for part in _by_fold(runs):
        check_same(f'row "{label}"', "labeled files", part, lambda run: section_of(run).labeled_file)
    seen: dict[Any, Run] = {}
    for run in runs:
        if run.draw in seen:
            raise UserError(
                f'row "{label}": {seen[run.draw].name} and {run.name} have the same seed and labeled images, '
                "and would count twice: leave one out"
            )
        seen[run.draw] = run


def _by_fold(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of each fold that a sweep names: its `{fold}` may lead to files of any name."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        found[str((run.place.get("axes") or {}).get("fold"))].append(run)
    return list(found.values())


def check_same(who: str, what: str, runs: Iterable[Run], read: Callable[[Run], Any]) -> None:
    """Raises UserError, with the values and the runs, unless `read` gives the same for all."""
    found: dict[Any, list[str]] = defaultdict(list)
    for run in runs:
        found[read(run)].append(run.name)
    if len(found) > 1:
        listed = " and ".join(f"{value} ({names(of)})" for value, of in found.items())
        raise UserError(f"{who} mixes {what}: {listed}; report them apart, or leave some out")


def names(of: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(of) - SHOWN
    return ", ".join(of[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _note_differences(row: Row) -> None:
    """Notes options that differ between the runs of a row of a sweep, which its axes don't name."""
    first = row.first.telling
    for run in row.runs[1:]:
        other = run.telling
        differ = (
            sorted(name for name in first.keys() | other.keys() if first.get(name) != other.get(name))
            if first and other
            else []
        )
        differ = [name for name in differ if not _TRAINING_FILE.search(name)]  # `_check` has seen to these
        if differ:
            row.notes.append(f"{row.label}: {run.name} has another {names(differ)} than {row.first.name}")
            return
