"""The report as one HTML page that needs nothing else: style, script, charts and pictures are inside."""

from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Any

import ssod
from ssod.study.report import page_tables
from ssod.study.report.curves import learning_curves, quality_curves
from ssod.study.report.elements import data, text
from ssod.study.report.literal import show
from ssod.study.report.pictures import Picture, pictures
from ssod.study.report.tables import Report, Table


def write(report: Report) -> str:
    """The text of report.html."""
    found, unshown = pictures(report)
    parts = [_section(table, report, place, found[place]) for place, table in enumerate(report.tables)]
    if unshown:
        parts.append(f'<p class="note">{unshown} more pictures are in the runs\' folders.</p>')
    return Template(_file("template.html")).substitute(
        title=text(report.title),
        style=_file("style.css"),
        script=_file("page.js"),
        summary=_summary(report),
        links=_links(report),
        sections="\n".join(parts),
        runs=page_tables.runs(report),
        apart=_apart(report),
        options="".join(f"<option>{text(run.name)}</option>" for run in report.runs),
        data=data(_configs(report)),
        version=text(ssod.__version__),
    )


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _summary(report: Report) -> str:
    """How much there is, in a line."""
    rows = sum(len(table.lines) for table in report.tables)
    counts = [(len(report.runs), "run"), (rows, "row"), (len(report.tables), "table")]
    if report.apart:
        counts.append((len(report.apart), "run without an end"))
    words = [f"{count} {name if count == 1 else _plural(name)}" for count, name in counts]
    return " · ".join(words)


def _plural(name: str) -> str:
    first, _, rest = name.partition(" ")
    return f"{first}s {rest}".strip()


def _links(report: Report) -> str:
    """The table of contents."""
    links = [(f"section-{place}", table.title) for place, table in enumerate(report.tables)]
    links += [("apart", "Runs without an end")] if report.apart else []
    links += [("runs", "Runs"), ("configs", "Configs"), ("reading", "How to read this")]
    return "".join(f'<li><a href="#{anchor}">{text(name)}</a></li>' for anchor, name in links)


def _section(table: Table, report: Report, place: int, shown: Sequence[Picture]) -> str:
    """Everything about one dataset, protocol and share of labels."""
    tested = {
        f"score threshold {line.row.first.tested[0]}, {line.row.first.tested[1]}" for line in table.lines
    }
    facts = [*table.section.facts, *(tested if len(tested) == 1 else ())]
    notes = "".join(f"<li>{text(note)}</li>" for note in table.notes)
    parts = [
        f'<section id="section-{place}" aria-labelledby="title-{place}">',
        f'<h2 id="title-{place}">{text(table.title)}</h2>',
        f'<p class="facts">{text(" · ".join(facts))}</p>',
        page_tables.results(table, report.metrics, place),
        f'<ul class="notes">{notes}</ul>' if notes else "",
        page_tables.between(table, place),
        page_tables.published(table, place),
        _curves(table),
        _quality(table),
        _pictures(shown),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _curves(table: Table) -> str:
    figures, names = learning_curves(table)
    if not figures:
        return ""
    return (
        f"<h3>Learning curves</h3>{_legend(names)}"
        '<p class="note">AP in per cent against iterations, of the validation during training. '
        f'Bold: the mean; faint: each run.</p><div class="charts">{"".join(figures)}</div>'
    )


def _quality(table: Table) -> str:
    figures, rows = quality_curves(table)
    if not figures:
        return ""
    return (
        f"<h3>Pseudo labels over time</h3>{_legend(rows)}"
        '<p class="note">What supervises classification, compared with the boxes that training never sees; '
        f'means over the runs of a row.</p><div class="charts">{"".join(figures)}</div>'
    )


def _legend(names: Sequence[tuple[str, str]]) -> str:
    """Names beside a piece of their line."""
    items = "".join(
        f'<li><svg viewBox="0 0 28 8" width="28" height="8" aria-hidden="true">'
        f'<line class="line {style}" x1="0" x2="28" y1="4" y2="4"/></svg>{text(name)}</li>'
        for name, style in names
    )
    return f'<ul class="legend">{items}</ul>'


def _pictures(shown: Sequence[Picture]) -> str:
    if not shown:
        return ""
    figures = "".join(
        f'<figure><button type="button" class="zoom"><img src="{each.uri}" width="{each.width}" '
        f'height="{each.height}"{_shape(each)} decoding="async" '
        f'alt="{text(each.label)}: {text(each.detail)}"></button>'
        f"<figcaption><b>{text(each.label)}</b> <span>{text(each.detail)}</span></figcaption></figure>"
        for each in shown
    )
    return (
        "<h3>What the teacher labels</h3>"
        '<p class="note">The last validation of one run of a row. Left the weak view with the boxes of the '
        "teacher, right the strong view with what the student learns from.</p>"
        f'<div class="pictures">{figures}</div>'
    )


def _shape(picture: Picture) -> str:
    """A class for what is shown whole; tall pictures are cut below until they are enlarged."""
    return ' class="wide"' if picture.width > picture.height else ""


def _apart(report: Report) -> str:
    if not report.apart:
        return ""
    return (
        '<section id="apart" aria-labelledby="apart-title"><h2 id="apart-title">Runs without an end</h2>'
        f"{page_tables.apart(report)}</section>"
    )


def _configs(report: Report) -> dict[str, Any]:
    """Every option and value once, and for each run which of them it has."""
    places: dict[tuple[str, str], int] = {}
    runs = []
    for run in report.runs:
        pairs = [(name, show(value)) for name, value in run.options.items()]
        runs.append({"name": run.name, "has": [places.setdefault(pair, len(places)) for pair in pairs]})
    return {"options": [list(pair) for pair in places], "runs": runs}
