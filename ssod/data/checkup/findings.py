"""What the doctor finds: one value type, ranked by harm. docs/doctor.md lists all codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["fails", "lies", "hurts", "note", "fact"]
# Training would fail; it would run and report wrong numbers; it would learn less than it could; a person
# should know; and what was measured or read, with nothing to mend.
SEVERITIES: tuple[Severity, ...] = ("fails", "lies", "hurts", "note", "fact")
SHOWN = 3  # examples in a finding's text


@dataclass(frozen=True)
class Finding:
    """One fault, or one fact.

    code: a stable name · where: a file or a place in the config · what: is there · mend: what to do about it,
    empty for a fact · values: the same in numbers, for machines.
    """

    severity: Severity
    code: str
    where: str
    what: str
    mend: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        return asdict(self)


def fails(code: str, where: str, what: str, mend: str, **values: Any) -> Finding:
    """A fault that training would stop at."""
    return Finding("fails", code, where, what, mend, values)


def lies(code: str, where: str, what: str, mend: str, **values: Any) -> Finding:
    """A fault with which training would run and report wrong numbers."""
    return Finding("lies", code, where, what, mend, values)


def hurts(code: str, where: str, what: str, mend: str, **values: Any) -> Finding:
    """A fault that costs accuracy or time."""
    return Finding("hurts", code, where, what, mend, values)


def note(code: str, where: str, what: str, mend: str, **values: Any) -> Finding:
    """Something that may be meant so."""
    return Finding("note", code, where, what, mend, values)


def fact(code: str, where: str, what: str, **values: Any) -> Finding:
    """Something read or measured."""
    return Finding("fact", code, where, what, "", values)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, the most harmful first; those of one severity in the order of the checks."""
    return sorted(findings, key=lambda one: SEVERITIES.index(one.severity))


def has_severe(findings: Iterable[Finding]) -> bool:
    """Whether training would fail or lie."""
    return any(one.severity in ("fails", "lies") for one in findings)


def count(number: int, noun: str) -> str:
    """`1 box`, `3 boxes`."""
    plural = noun + ("es" if noun.endswith(("x", "s")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def some(examples: Sequence[object], total: int | None = None) -> str:
    """The first few examples as text, and how many more there are; total: by default how many are given."""
    total = len(examples) if total is None else total
    more = f", and {total - SHOWN:,} more" if total > SHOWN else ""
    return ", ".join(str(each) for each in list(examples)[:SHOWN]) + more
