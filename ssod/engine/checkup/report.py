"""The doctor's findings on the console: what was seen, then what is wrong, the most harmful first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ssod.data.checkup.findings import Finding, Severity, count

TITLES: Mapping[Severity, tuple[str, str]] = {
    "fails": ("training would fail", "bold red"),
    "lies": ("training would run and report wrong numbers", "bold magenta"),
    "hurts": ("costs accuracy or time", "yellow"),
    "note": ("may be meant so", "cyan"),
}
MAX_CLASSES = 20  # rows of the histogram


def show(findings: Sequence[Finding], console: Console) -> None:
    """Prints the findings, which are ranked."""
    for one in findings:
        if one.severity == "fact" and one.code != "class-histogram":
            console.print(f"{one.code}: {one.what}" if one.where != one.code else one.what, markup=False)
    for one in findings:
        if one.code == "class-histogram" and one.values:
            console.print(_histogram(one.values))
    for severity, (title, style) in TITLES.items():
        here = [one for one in findings if one.severity == severity]
        if here:
            console.print(f"\n{severity.upper()}: {title}", style=style, markup=False)
        for one in here:
            console.print(f"  {one.code} · {one.where}", markup=False)
            console.print(f"    {one.what}", markup=False)
            console.print(f"    -> {one.mend}", markup=False)
    console.print("\n" + summary(findings), markup=False)


def summary(findings: Sequence[Finding]) -> str:
    """The last line: how many findings of each severity."""
    counts = [(name, sum(one.severity == name for one in findings)) for name in TITLES]
    found = [f"{name} {number}" for name, number in counts if number]
    total = sum(number for _, number in counts)
    return f"{count(total, 'finding')}: {', '.join(found)}" if found else "nothing to mend"


def _histogram(values: Mapping[str, Mapping[str, Any]]) -> Table:
    """The boxes of each class, a column for each part with boxes."""
    table = Table(title="boxes of each class", title_justify="left")
    parts = list(next(iter(values.values())))
    table.add_column("class")
    for name in parts:
        table.add_column(name, justify="right")
    for name, row in list(values.items())[:MAX_CLASSES]:
        table.add_row(name, *(f"{row.get(part, 0):,}" for part in parts))
    if len(values) > MAX_CLASSES:
        table.add_row(f"... {len(values)} in all (--json lists them)", *("" for _ in parts))
    return table
