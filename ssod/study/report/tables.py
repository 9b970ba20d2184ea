"""The tables of a report as numbers: rows with summaries and gains, which each format writes in its way."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssod.study.report.published import Published, published_for
from ssod.study.report.rows import make_rows
from ssod.study.report.sections import Row, Section, titles
from ssod.study.report.statistics import Gain, Summary, paired_gain, summarize
from ssod.study.report.twins import Twins, counterpart
from ssod.study.results import METRIC_KEYS, NETWORKS, Run, find_runs

METRICS = ("AP", "AP50", "AP75")
SIZES = ("APs", "APm", "APl")
Place = tuple[str, str]  # network and metric


@dataclass(frozen=True)
class Pair:
    """A run, its twin, and for each network and metric the difference in AP."""

    run: Run
    twin: Run
    differences: dict[Place, float]


@dataclass
class Line:
    """A row with its numbers. `unpaired`: runs without a twin."""

    row: Row
    summaries: dict[Place, Summary]
    gains: dict[Place, Gain]
    pairs: list[Pair]
    unpaired: list[Run]

    @property
    def headline(self) -> str:
        """The network that is tested in the end: the teacher where there is one."""
        return next((name for name in NETWORKS if (name, "AP") in self.summaries), NETWORKS[0])


@dataclass
class Table:
    """The rows of one section. `title`: the section's, or longer where another section has the same."""

    section: Section
    title: str
    lines: list[Line]
    published: list[Published]
    why_none: str  # why no published number is shown; empty where some are
    notes: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """All runs, row by row."""
        return [run for line in self.lines for run in line.row.runs]

    @property
    def beside_published(self) -> list[Published]:
        """The published numbers, below the means of our own rows; empty without any."""
        ours = [
            Published(line.row.label, found.mean, f"these runs, {line.headline}, n = {found.n}", ours=True)
            for line in self.lines
            if (found := line.summaries.get((line.headline, "AP")))
        ]
        return [*ours, *self.published] if self.published else []

    @property
    def networks(self) -> list[str]:
        """Those that any row has numbers of."""
        return [name for name in NETWORKS if any((name, "AP") in line.summaries for line in self.lines)]


@dataclass
class Report:
    """All that is written. `apart`: runs that did not come to their end, in no table."""

    title: str
    tables: list[Table]
    apart: list[Run]
    metrics: tuple[str, ...]

    @property
    def runs(self) -> list[Run]:
        """The runs in the tables."""
        return [run for table in self.tables for run in table.runs]


def make_report(folders: Sequence[str | Path], title: str | None = None, sizes: bool = False) -> Report:
    """The report on all runs in the folders; UserError for what can't be read or averaged.

    sizes: AP of small, medium and large boxes, too.
    """
    runs = find_runs(folders)
    done = [run for run in runs if run.is_done]
    metrics = METRICS + (SIZES if sizes else ())
    rows = make_rows(done)
    twins = Twins(done)
    tables = []
    sections = list(dict.fromkeys(row.section for row in rows))
    for section, heading in zip(sections, titles(sections), strict=True):
        lines = [_line(row, twins) for row in rows if row.section == section]
        published, why_none = published_for(section)
        table = Table(section, heading, lines, published, why_none)
        table.notes = [*_notes(table), *twins.unclear]
        twins.unclear.clear()
        tables.append(table)
    return Report(title or _title(folders), tables, [run for run in runs if not run.is_done], metrics)


def _title(folders: Sequence[str | Path]) -> str:
    """The folder's name; of several, all names."""
    return ", ".join(dict.fromkeys(Path(folder).resolve().name for folder in folders)) or "Runs"


def _line(row: Row, twins: Twins) -> Line:
    summaries = {}
    for network in NETWORKS:
        for metric in METRIC_KEYS:
            values = [run.value(network, metric) for run in row.runs]
            found = summarize([value for value in values if value is not None])
            if found is not None:
                summaries[network, metric] = found
    pairs, unpaired = [], []
    for run in row.runs:
        twin = twins.of(run)
        if twin is not None:
            pairs.append(Pair(run, twin, _differences(run, twin)))
        elif not run.is_supervised:
            unpaired.append(run)
    gains = {}
    for place in summaries:
        gain = paired_gain([pair.differences[place] for pair in pairs if place in pair.differences])
        if gain is not None:
            gains[place] = gain
    return Line(row, summaries, gains, pairs, unpaired)


def _differences(run: Run, twin: Run) -> dict[Place, float]:
    found = {}
    for network in run.networks:
        other = counterpart(twin, network)
        for metric in METRIC_KEYS if other else ():
            one, two = run.value(network, metric), twin.value(other or "", metric)
            if one is not None and two is not None:
                found[network, metric] = one - two
    return found


def _notes(table: Table) -> list[str]:
    """Sentences on what a reader of the table must know."""
    notes = [f"{note}." for line in table.lines for note in line.row.notes]
    for line in table.lines:
        missing = len(line.unpaired)
        if missing and missing == len(line.row.runs):
            notes.append(f"{line.row.label}: no supervised twin, so no Δ.")
        elif missing:
            notes.append(f"{line.row.label}: {missing} of {len(line.row.runs)} runs have no supervised twin.")
        few = sorted({summary.n for summary in line.summaries.values()} - {len(line.row.runs)})
        if few:
            counts = " or ".join(map(str, few))
            notes.append(
                f"{line.row.label}: some columns are of {counts} of {len(line.row.runs)} runs alone."
            )
        if any(counterpart(pair.twin, name) != name for pair in line.pairs for name in pair.run.networks):
            notes.append(f"{line.row.label}: the twins have one network, with which both are compared.")
        batches = {pair.twin.batch[0] for pair in line.pairs} - {line.row.first.batch[0]}
        if batches:
            counts = " or ".join(map(str, sorted(batches)))
            notes.append(
                f"{line.row.label}: the twins have {counts} labeled images in a batch and these runs "
                f"{line.row.first.batch[0]}, so Δ shows that, too."
            )
    for what, values in _tested(table).items():
        if len(values) > 1:
            notes.append(
                f"Rows were tested with different {what}, so their AP can't be compared: {', '.join(values)}."
            )
    return notes


def _tested(table: Table) -> dict[str, list[str]]:
    tested = [line.row.first.tested for line in table.lines]
    return {
        "score thresholds": list(dict.fromkeys(str(each[0]) for each in tested)),
        "evaluators": list(dict.fromkeys(str(each[1]) for each in tested)),
    }
