"""The tables as LaTeX, for \\usepackage{booktabs}."""

import re
from collections.abc import Sequence

from ssod.study.report import cells
from ssod.study.report.statistics import Gain
from ssod.study.report.tables import Line, Report, Table

_SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_MATH = {
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "Δ": r"$\Delta$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "λ": r"$\lambda$",
}
_SIGN = re.compile("|".join(map(re.escape, {**_SIGNS, **_MATH})))


def write(report: Report) -> str:
    """The text of report.tex: for each section its notes, as comments, and one table, for \\input."""
    head = f"% {' '.join(report.title.split())}\n% \\usepackage{{booktabs}}\n"
    return head + "\n" + "\n".join(_table(table, report.metrics) for table in report.tables)


def _table(table: Table, metrics: Sequence[str]) -> str:
    networks, width = table.networks, len(metrics) + 1
    lines = [
        *(f"% {' '.join(note.split())}" for note in table.notes),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.title)}. {escape(cells.explanation(tuple(metrics)))}}}",
        rf"\begin{{tabular}}{{lr{('r' * len(metrics) + 'l') * len(networks)}}}",
        r"\toprule",
        " & " + "".join(rf"& \multicolumn{{{width}}}{{c}}{{{each}}} " for each in networks) + r"\\",
        " ".join(
            rf"\cmidrule(lr){{{3 + width * place}-{2 + width * (place + 1)}}}"
            for place in range(len(networks))
        ),
        " & ".join(["method", "$n$", *[*map(_metric, metrics), r"$\Delta$ AP"] * len(networks)]) + r" \\",
        r"\midrule",
        *(" & ".join(_cells(line, networks, metrics)) + r" \\" for line in table.lines),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _metric(name: str) -> str:
    """AP50 as AP with a small 50 below."""
    return name if name == "AP" else rf"AP$_{{{name.removeprefix('AP')}}}$"


def _cells(line: Line, networks: Sequence[str], metrics: Sequence[str]) -> list[str]:
    label = escape(line.row.label)
    if label.startswith(("[", "*")):  # behind a \\, it would be taken for its argument or its star
        label = f"{{}}{label}"
    found = [label, str(len(line.row.runs))]
    for network in networks:
        found += [escape(cells.spread(line.summaries.get((network, metric)))) for metric in metrics]
        has = (network, "AP") in line.summaries
        found.append(_gain(line.gains.get((network, "AP")), line) if has else "--")
    return found


def _gain(gain: Gain | None, line: Line) -> str:
    return escape(cells.gain_text(gain, line))


def escape(text: str) -> str:
    """The text as LaTeX prints it, on one line."""
    return _SIGN.sub(lambda found: {**_SIGNS, **_MATH}[found[0]], " ".join(text.split()))
