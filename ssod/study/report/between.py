"""Rows of a section against each other: differences in AP of runs with the same images, seed and length."""

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import permutations

from ssod.study.report.statistics import Gain, paired_gain
from ssod.study.report.tables import Line, Table
from ssod.study.results import NETWORKS, Run

MOST = 12  # rows; a table of more can't be read, differences.csv has them all


@dataclass(frozen=True)
class Between:
    """Rows with runs in common, and by their places the gain of one over another, of which network."""

    lines: dict[int, Line]
    gains: dict[tuple[int, int], Gain]
    networks: dict[tuple[int, int], str]

    @property
    def is_small(self) -> bool:
        """Whether the rows make a table that can be read."""
        return len(self.lines) <= MOST


def compare(table: Table) -> Between | None:
    """The section's rows against each other, but for supervised ones; None where no runs pair up.

    A pair is two runs with the same labeled images, seed and number of iterations (of the last stage), tested
    alike. Teachers are compared, or the students where one of the rows has no teacher.
    """
    lines = [line for line in table.lines if not line.row.first.is_supervised]
    values = {(place, name): _values(line, name) for place, line in enumerate(lines) for name in NETWORKS}
    gains, networks = {}, {}
    for one, two in permutations(range(len(lines)), 2):
        network = next((name for name in NETWORKS if values[one, name] and values[two, name]), NETWORKS[0])
        ours, theirs = values[one, network], values[two, network]
        gain = paired_gain([ap - theirs[key] for key, ap in ours.items() if key in theirs])
        if gain is not None:
            gains[one, two], networks[one, two] = gain, network
    paired = sorted({place for place, _ in gains})
    return Between({place: lines[place] for place in paired}, gains, networks) if gains else None


def _values(line: Line, network: str) -> dict[Hashable, float]:
    """AP in per cent by what the runs of a pair share."""
    values = {_shared(run): run.value(network, "AP") for run in line.row.runs if run.split.get("ids_sha256")}
    return {key: ap for key, ap in values.items() if ap is not None}


def _shared(run: Run) -> Hashable:
    return run.draw, run.result["iterations"], run.tested
