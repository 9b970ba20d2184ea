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

    lines: list[Line]
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
    found = {}
    for one, two in permutations(range(len(lines)), 2):
        for network in NETWORKS:
            ours, theirs = _values(lines[one], network), _values(lines[two], network)
            if ours and theirs:
                gain = paired_gain([ap - theirs[key] for key, ap in ours.items() if key in theirs])
                if gain is not None:
                    found[one, two] = network, gain
                break
    there = sorted({one for one, _ in found})
    places = {(there.index(one), there.index(two)): each for (one, two), each in found.items()}
    gains = {place: gain for place, (_, gain) in places.items()}
    networks = {place: network for place, (network, _) in places.items()}
    return Between([lines[place] for place in there], gains, networks) if found else None


def _values(line: Line, network: str) -> dict[Hashable, float]:
    """AP in per cent by what the runs of a pair share."""
    values = {_shared(run): run.value(network, "AP") for run in line.row.runs if run.split.get("ids_sha256")}
    return {key: ap for key, ap in values.items() if ap is not None}


def _shared(run: Run) -> Hashable:
    return run.draw, run.result["iterations"], run.tested
