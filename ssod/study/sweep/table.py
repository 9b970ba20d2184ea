"""What a person sees of a sweep: a live table on a terminal, elsewhere a line for each change."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ssod.engine.records.console import clock
from ssod.study.sweep.progress import Progress

STYLES = {
    "running": "cyan",
    "done": "green",
    "failed": "red",
    "held by another": "yellow",
    "stopped": "yellow",
}
LINES_AROUND = 8  # of the terminal, that are not rows
WIDTH = 160  # where no terminal has one: in a job's output, say


@dataclass
class Row:
    """A line of the table. state: waiting, starting, running, held by another, stopped, failed, done."""

    name: str
    total: int
    folder: Path
    state: str = "waiting"
    progress: Progress = field(default_factory=Progress)

    def cells(self) -> list[str]:
        """The table's cells, after the name."""
        seen = self.progress
        eta = clock(seen.eta) if seen.eta is not None and self.state == "running" else ""
        ap = "" if seen.ap is None or seen.ap < 0 else f"{100 * seen.ap:.1f}"
        log = "" if seen.log is None else os.path.relpath(seen.log, self.folder)
        tried = str(seen.attempts) if seen.attempts else ""
        return [self.state, f"{seen.iteration}/{self.total}", eta, ap, tried, log]


class Board:
    """Shows the rows of a sweep."""

    def __init__(self, title: str, rows: Sequence[Row], work_dir: Path) -> None:
        self.title, self.rows, self.work_dir = title, rows, work_dir
        width = None if sys.stdout.isatty() else WIDTH
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True, width=width)
        self.live: Live | None = None
        self.said: dict[str, tuple[str, float | None]] = {}

    @contextmanager
    def shown(self, live: bool = True) -> Iterator["Board"]:
        """A block in which the table is alive, if somebody watches."""
        if not (live and self.console.is_terminal):
            yield self
            return
        with Live(
            self._fitting(), console=self.console, auto_refresh=False, vertical_overflow="crop"
        ) as self.live:
            yield self
        self.live = None

    def update(self) -> None:
        """Draws the table again; elsewhere, says what is new."""
        if self.live is not None:
            self.live.update(self._fitting(), refresh=True)
            return
        for row in self.rows:
            now = (row.state, row.progress.ap)
            before = self.said.get(row.name, ("waiting", None))
            if now != before:
                state, place, eta, ap, *_ = row.cells()
                words = (row.name, state, place, eta and f"eta {eta}", ap and f"AP {ap}", self._log(row))
                self.say("  ".join(filter(None, words)))
            self.said[row.name] = now

    def _log(self, row: Row) -> str:
        return (
            f"log {os.path.relpath(row.progress.log)}" if row.state == "failed" and row.progress.log else ""
        )

    def say(self, text: str) -> None:
        """Prints one line, above the table if it is alive."""
        self.console.print(text, markup=False)

    def _fitting(self) -> Table:
        return self.table(max(self.console.height - LINES_AROUND, 4))

    def table(self, limit: int | None = None) -> Table:
        """The table; of many runs those that something happens to, and how many there are of the others."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row.state] = counts.get(row.state, 0) + 1
        shown = list(self.rows)
        if limit is not None and len(shown) > limit:
            order = ("running", "failed", "held by another", "stopped", "starting", "waiting", "done")
            kept = {id(row) for row in sorted(shown, key=lambda row: order.index(row.state))[:limit]}
            shown = [row for row in shown if id(row) in kept]
        said = ", ".join(f"{count} {state}" for state, count in counts.items())
        table = Table(
            title=Text(f"{self.title}: {said}; in {os.path.relpath(self.work_dir)}"), title_justify="left"
        )
        for name in ("run", "state"):
            table.add_column(name, no_wrap=True)
        for name in ("iteration", "eta", "AP", "tries"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("log", no_wrap=True, overflow="ellipsis")
        for row in shown:
            table.add_row(row.name, *row.cells(), style=STYLES.get(row.state, ""))
        return table

    def final(self) -> None:
        """Prints the whole table once more, and a line for each run that failed."""
        self.console.print(self.table())
        for row in self.rows:
            if row.state == "failed":
                log = f" (log: {os.path.relpath(row.progress.log)})" if row.progress.log else ""
                self.say(f"failed: {row.name}: {row.progress.error or 'no reason given'}{log}")
        self.say(f"files: {self.work_dir}")
