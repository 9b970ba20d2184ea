"""The report as Markdown."""

import re
from collections.abc import Container, Sequence

from ssod.study.report import cells
from ssod.study.report.between import Between, compare
from ssod.study.report.tables import Line, Report, Table
from ssod.study.results import Run


def write(report: Report) -> str:
    """The text of report.md."""
    parts = [f"# {escape(report.title)}"]
    for table in report.tables:
        parts += _section(table, report.metrics)
    if report.apart:
        parts += ["## Not averaged", "Runs that did not come to their end.", _grid(*apart(report))]
    parts += ["## Runs", _grid(*runs(report))]
    return "\n\n".join(parts) + "\n"


def _section(table: Table, metrics: Sequence[str]) -> list[str]:
    parts = [f"## {escape(table.title)}", escape("; ".join(table.section.facts)) + "."]
    header, rows = grid(table, metrics)
    parts.append(_grid(header, rows, numbers=range(1, len(header))))
    parts.append(escape(cells.explanation(tuple(metrics))))
    if table.notes:
        parts.append("\n".join(f"- {escape(note)}" for note in table.notes))
    between = compare(table)
    if between and between.is_small:
        parts += [f"{cells.BETWEEN}:", _matrix(between)]
    if table.published:
        rows = [[each.method, cells.number(each.ap, 2), each.source] for each in table.beside_published]
        parts += [cells.PUBLISHED + ":", _grid(["method", "AP", "source"], rows, numbers=(1,))]
    else:
        parts.append(escape(table.why_none))
    return parts


def grid(table: Table, metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a section's table, as plain text."""
    header = ["method", "n"]
    for network in table.networks:
        header += [*(f"{network} {metric}" for metric in metrics), f"{network} Δ AP [95 %]"]
    return [*header, "iterations", "batch"], [_cells(line, table.networks, metrics) for line in table.lines]


def _cells(line: Line, networks: Sequence[str], metrics: Sequence[str]) -> list[str]:
    found = [line.row.label, str(len(line.row.runs))]
    for network in networks:
        found += [cells.spread(line.summaries.get((network, metric))) for metric in metrics]
        has = (network, "AP") in line.summaries
        found.append(cells.gain_text(line.gains.get((network, "AP")), line) if has else cells.NONE)
    return [*found, cells.iterations(line), cells.batch(line)]


def _matrix(between: Between) -> str:
    """Each row less each column; the cells are Markdown already."""
    names = {place: escape(line.row.label) for place, line in between.lines.items()}
    rows = []
    for place, line in between.lines.items():
        row = [names[place]]
        for other in between.lines:
            gain = between.gains.get((place, other))
            shown = escape(cells.gain_text(gain, line)) if gain else ""
            row.append(f"**{shown}**" if gain and cells.is_told_from_zero(gain) else shown)
        rows.append(row)
    return _lines(["row less column", *names.values()], rows, range(1, len(names) + 1))


def runs(report: Report) -> tuple[list[str], list[list[str]]]:
    """One row for each run in the tables."""
    header = ["run", "row", "seed", "fold", "teacher AP", "student AP", "Δ AP", "labeled images", "git"]
    rows = []
    for table in report.tables:
        for line in table.lines:
            paired = {pair.run.name: pair.differences.get((line.headline, "AP")) for pair in line.pairs}
            for run in line.row.runs:
                gain = paired.get(run.name)
                values = [cells.number(run.value(network, "AP")) for network in ("teacher", "student")]
                rows.append(
                    [
                        run.name,
                        line.row.label,
                        str(run.result["seed"]),
                        _or_dash(run.split.get("fold")),
                        *values,
                        cells.NONE if gain is None else cells.signed(gain),
                        _labeled(run),
                        str(run.result.get("git") or "?")[:10],
                    ]
                )
    return header, rows


def apart(report: Report) -> tuple[list[str], list[list[str]]]:
    """One row for each run that is in no table."""
    rows = [
        [
            run.name,
            str(run.result["status"]),
            str(run.result["method"]),
            str(run.result["iterations"]),
            str(run.result.get("error") or cells.NONE),
        ]
        for run in report.apart
    ]
    return ["run", "status", "method", "iterations", "error"], rows


def _labeled(run: Run) -> str:
    """How many images are labeled, and the beginning of the hash of their ids."""
    return f"{_or_dash(run.split.get('num_labeled'))} ({str(run.split.get('ids_sha256') or '?')[:8]})"


def _or_dash(value: object) -> str:
    return cells.NONE if value is None else str(value)


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Container[int] = ()) -> str:
    """A Markdown table; the columns `numbers` stand right."""
    return _lines(list(map(escape, header)), [list(map(escape, row)) for row in rows], numbers)


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Container[int]) -> str:
    """A Markdown table of cells that are Markdown."""
    marks = ["---:" if place in numbers else "---" for place in range(len(header))]
    lines = [header, marks, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    """The text without a meaning in Markdown or HTML."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|_~#$])", r"\\\1", text)
