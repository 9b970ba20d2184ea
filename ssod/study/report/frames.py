"""The report as tables for a program: report.csv with the averages, runs.csv with every run."""

from typing import Any

import pandas

from ssod.study.report.between import compare
from ssod.study.report.tables import Report, Table
from ssod.study.results import METRIC_KEYS, NETWORKS, Run

DIGITS = 4
SECTION = ("section", "dataset", "protocol", "percent", "labeled_file", "tested_file")
DIFFERENCE = ("row", "less", "network", "pairs", "difference", "low", "high")


def averages(report: Report) -> pandas.DataFrame:
    """One line for each row, network and metric: n, mean, deviation, and the gain with its interval."""
    lines = [
        {
            **_section(table),
            "row": line.row.label,
            "network": network,
            "metric": metric,
            "n": summary.n,
            "mean": summary.mean,
            "deviation": summary.deviation,
            "pairs": gain.n if gain else 0,
            "gain": gain.mean if gain else None,
            "gain_low": gain.low if gain else None,
            "gain_high": gain.high if gain else None,
        }
        for table in report.tables
        for line in table.lines
        for (network, metric), summary in line.summaries.items()
        for gain in [line.gains.get((network, metric))]
    ]
    return pandas.DataFrame(lines)


def differences(report: Report) -> pandas.DataFrame:
    """One line for each row of a section and each other one: how much more AP it has, and the interval."""
    lines = [
        {
            **_section(table),
            "row": between.lines[row].row.label,
            "less": between.lines[other].row.label,
            "network": between.networks[row, other],
            "pairs": gain.n,
            "difference": gain.mean,
            "low": gain.low,
            "high": gain.high,
        }
        for table in report.tables
        for between in [compare(table)]
        if between
        for (row, other), gain in between.gains.items()
    ]
    return pandas.DataFrame(lines, columns=[*SECTION, *DIFFERENCE])


def runs(report: Report) -> pandas.DataFrame:
    """One line for each run, those that are in no row last."""
    lines: list[dict[str, Any]] = []
    for table in report.tables:
        for line in table.lines:
            twins = {pair.run.name: pair.twin.name for pair in line.pairs}
            for run in line.row.runs:
                lines.append(
                    {
                        **_section(table),
                        "row": line.row.label,
                        **_run(run),
                        "twin": twins.get(run.name),
                    }
                )
    frame = pandas.DataFrame([*lines, *(_run(run) for run in report.apart)])
    for name in ("seed", "fold", "num_labeled"):
        frame[name] = frame[name].convert_dtypes()  # whole numbers, though some are missing
    return frame


def to_csv(frame: pandas.DataFrame) -> str:
    """The frame as CSV text."""
    text: str = frame.to_csv(index=False, float_format=f"%.{DIGITS}f", lineterminator="\n")
    return text


def _section(table: Table) -> dict[str, Any]:
    section = table.section
    percent = None if section.percent is None else f"{section.percent:g}"
    files = (section.labeled_file, section.tested_file)
    values = (table.title, section.dataset, section.protocol, percent, *files)
    return dict(zip(SECTION, values, strict=True))


def _run(run: Run) -> dict[str, Any]:
    labeled, unlabeled = run.batch
    return {
        "run": run.name,
        "status": run.result["status"],
        "method": run.result["method"],
        "seed": run.result["seed"],
        "fold": run.split.get("fold"),
        "num_labeled": run.split.get("num_labeled"),
        "ids_sha256": run.split.get("ids_sha256"),
        "iterations": run.result["iterations"],
        "batch_labeled": labeled,
        "batch_unlabeled": unlabeled,
        "score_thr": None if run.tested[0] is None else f"{run.tested[0]:g}",
        "evaluator": run.tested[1],
        "seconds": run.result.get("seconds"),
        "git": run.result.get("git"),
        **{
            f"{network}_{metric}": run.value(network, metric)
            for network in NETWORKS
            for metric in METRIC_KEYS
        },
    }
