"""The tables of the page: one for each section, published numbers, all runs, and runs that are in no row."""

from collections.abc import Sequence

from ssod.study.report import cells
from ssod.study.report.between import compare
from ssod.study.report.charts import gain_axis, gain_strip, ticks
from ssod.study.report.elements import cell, column, row_header, table, text
from ssod.study.report.statistics import Gain, Summary
from ssod.study.report.tables import Line, Report, Table
from ssod.study.results import Run


def results(found: Table, metrics: Sequence[str], place: int) -> str:
    """The section's table: teacher and student side by side, and each pair's gain drawn at the end."""
    ends = _ends(found)
    groups = "".join(
        f'<th scope="colgroup" colspan="{len(metrics) + 1}">{network}</th>' for network in found.networks
    )
    gains = "<td></td>" if ends else ""
    columns = [column("method", 0, "name"), column("n", 1)]
    for _ in found.networks:
        columns += [column(metric, len(columns) + shift) for shift, metric in enumerate(metrics)]
        columns.append(column("Δ AP", len(columns), "number gain"))
    if ends:
        columns.append(column("Δ AP of each pair", len(columns), "plot", gain_axis(ends)))
    head = f'<tr class="groups"><td colspan="2"></td>{groups}{gains}</tr><tr>{"".join(columns)}</tr>'
    body = [_row(line, found.networks, metrics, ends) for line in found.lines]
    caption = (
        "AP in per cent: mean ± sample standard deviation of n runs. "
        "Δ: gain over the supervised twin, with its 95 % interval"
    )
    return table(f"results-{place}", caption, head, body, "wide" if len(found.networks) > 1 else "")


def _ends(found: Table) -> tuple[float, float] | None:
    """The scale of the section's strips: round numbers around all gains and zero; None without gains."""
    values = [0.0]
    for line in found.lines:
        gain = line.gains.get((line.headline, "AP"))
        if gain is not None:
            values += gain.differences
            values += [each for each in (gain.low, gain.high) if each is not None]
    if len(values) == 1:
        return None
    marks = ticks(min(values), max(values), 8)
    return marks[0], marks[-1]


def _row(
    line: Line, networks: Sequence[str], metrics: Sequence[str], ends: tuple[float, float] | None
) -> str:
    about = f"{cells.iterations(line)} × ({cells.batch(line)}) images"
    parts = [row_header(f'{text(line.row.label)}<span class="about">{about}</span>', line.row.label)]
    parts.append(cell(str(len(line.row.runs)), len(line.row.runs)))
    for network in networks:
        parts += [_summary(line.summaries.get((network, metric))) for metric in metrics]
        has = (network, "AP") in line.summaries
        parts.append(_gain(line.gains.get((network, "AP")), line, has))
    if ends:
        gain = line.gains.get((line.headline, "AP"))
        strip = gain_strip(gain.differences, gain.low, gain.high, gain.mean, ends) if gain else ""
        parts.append(cell(strip, gain.mean if gain else None, "plot"))
    return "".join(parts)


def _summary(summary: Summary | None) -> str:
    if summary is None:
        return cell(f'<span class="none">{cells.NONE}</span>')
    spread = "" if summary.deviation is None else f' <span class="spread">± {summary.deviation:.1f}</span>'
    return cell(f"{cells.number(summary.mean)}{spread}", summary.mean)


def _gain(gain: Gain | None, line: Line, has: bool) -> str:
    if gain is None or not has:
        shown = cells.gain_text(None, line) if has else cells.NONE
        return cell(f'<span class="none">{shown}</span>', kind="number gain")
    return cell(_with_interval(gain, line), gain.mean, "number gain")


def _with_interval(gain: Gain, line: Line) -> str:
    mean = cells.signed(gain.mean)
    few = cells.few_pairs(gain, line)
    return f'{mean}<span class="about">{text(cells.interval(gain))}{few}</span>'


def between(found: Table, place: int) -> str:
    """The section's rows against each other; a sentence where these are too many for a table."""
    there = compare(found)
    if there is None:
        return ""
    if not there.is_small:
        return '<p class="note">differences.csv compares the rows with each other: too many for a table.</p>'
    names = [line.row.label for line in there.lines.values()]
    columns = [column("row less column", 0, "name")]
    columns += [column(text(name), number, "number gain") for number, name in enumerate(names, 1)]
    body = []
    for row, line in there.lines.items():
        parts = [row_header(text(line.row.label), line.row.label)]
        for other in there.lines:
            gain = there.gains.get((row, other))
            shown = _with_interval(gain, line) if gain else ""
            if gain and cells.is_told_from_zero(gain):
                shown = f"<b>{shown}</b>"
            parts.append(cell(shown, gain.mean if gain else None, "number gain"))
        body.append("".join(parts))
    head = f"<tr>{''.join(columns)}</tr>"
    return f"<h3>Rows against each other</h3>{table(f'between-{place}', text(cells.BETWEEN), head, body)}"


def published(found: Table, place: int) -> str:
    """What others report on the same split, or the sentence that says why nothing is shown."""
    if not found.published:
        return f'<p class="note">{text(found.why_none)}</p>'
    head = f"<tr>{column('method', 0, 'name')}{column('AP', 1)}{column('source', 2, 'text')}</tr>"
    body = [
        row_header(f"<b>{text(each.method)}</b>" if each.ours else text(each.method), each.method)
        + cell(cells.number(each.ap, 2), each.ap)
        + cell(text(each.source), each.source, "text")
        for each in found.beside_published
    ]
    return table(f"published-{place}", cells.PUBLISHED, head, body)


RUN_COLUMNS = (
    ("run", "name"),
    ("row", "text"),
    ("seed", "number"),
    ("fold", "number"),
    ("teacher AP", "number"),
    ("student AP", "number"),
    ("Δ AP", "number"),
    ("labeled", "number"),
    ("minutes", "number"),
    ("commit", "text"),
)


def runs(report: Report) -> str:
    """All runs of all sections."""
    head = f"<tr>{''.join(column(name, place, kind) for place, (name, kind) in enumerate(RUN_COLUMNS))}</tr>"
    body = []
    for found in report.tables:
        for line in found.lines:
            paired = {pair.run.name: pair.differences.get((line.headline, "AP")) for pair in line.pairs}
            body += [_run(run, line, paired.get(run.name)) for run in line.row.runs]
    return table("runs-table", "Every run in the tables above", head, body, "long")


def _run(run: Run, line: Line, gain: float | None) -> str:
    seconds = run.result.get("seconds")
    fold = run.split.get("fold")
    labeled = run.split.get("num_labeled")
    commit = str(run.result.get("git") or cells.NONE)[:10]
    values = [run.value(network, "AP") for network in ("teacher", "student")]
    return "".join(
        [
            row_header(text(run.name), run.name),
            cell(text(line.row.label), line.row.label, "text"),
            cell(text(run.result["seed"]), run.result["seed"]),
            cell(cells.NONE if fold is None else text(fold), fold),
            *(cell(cells.number(value), value) for value in values),
            cell(cells.NONE if gain is None else cells.signed(gain), gain),
            cell(cells.NONE if labeled is None else text(labeled), labeled),
            cell(cells.number(seconds / 60, 0) if seconds else cells.NONE, seconds),
            cell(f"<code>{text(commit)}</code>", commit, "text"),
        ]
    )


def apart(report: Report) -> str:
    """Runs that did not come to their end."""
    head = "".join(
        column(name, place, kind)
        for place, (name, kind) in enumerate(
            (
                ("run", "name"),
                ("status", "text"),
                ("method", "text"),
                ("iterations", "number"),
                ("error", "text"),
            )
        )
    )
    body = []
    for run in report.apart:
        error = str(run.result.get("error") or cells.NONE)
        body.append(
            row_header(text(run.name), run.name)
            + cell(text(run.result["status"]), run.result["status"], "text")
            + cell(text(run.result["method"]), run.result["method"], "text")
            + cell(f"{run.result['iterations']:,}", run.result["iterations"])
            + cell(text(error), error, "text error")
        )
    return table("apart-table", "In no table above", f"<tr>{head}</tr>", body)
