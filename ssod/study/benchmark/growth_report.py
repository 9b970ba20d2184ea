"""What a step costs as one thing grows, as a table and a plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssod.engine.records.curves import COLOURS
from ssod.engine.records.writing import replacing
from ssod.study.benchmark.report import write_files


def table(report: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """Title, heads and rows of a report of `vary`."""
    rows = [
        [value, f"{took['median']:.3f} ({took['low']:.3f} to {took['high']:.3f})", f"{bytes_ / 2**20:.0f}"]
        for value, took, bytes_ in zip(
            report["values"], report["seconds"], report["memory"]["bytes"], strict=True
        )
    ]
    return f"{report['method']}'s step by {report['unit']}", [report["vary"], "seconds", "peak MiB"], rows


def sentences(report: Mapping[str, Any]) -> list[str]:
    """What was measured, in lines of text."""
    said = {key: "unknown" if each is None else f"{each:.2f}" for key, each in report["exponents"].items()}
    return [
        f"{report['config']} on {report['device']}, {report['precision']}, {report['rounds']} rounds, "
        f"{report['clock']} clock",
        f"memory: {report['memory']['measure']}",
        f"largest power of growth between neighbours (1 is linear): seconds {said['seconds']}, memory "
        f"{said['memory']}",
    ]


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Writes the plot: seconds with their range, and memory, against what was varied."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    middle = [each["median"] for each in report["seconds"]]
    spread = [
        [each["median"] - each["low"] for each in report["seconds"]],
        [each["high"] - each["median"] for each in report["seconds"]],
    ]
    left.errorbar(report["amounts"], middle, yerr=spread, marker="o", color=COLOURS[0], capsize=3)
    left.set_ylabel("seconds of a step")
    right.plot(
        report["amounts"], [each / 2**20 for each in report["memory"]["bytes"]], "o-", color=COLOURS[1]
    )
    right.set_ylabel("peak memory of a step, MiB")
    for axes in (left, right):
        axes.set_xlabel(report["unit"])
        axes.set_ylim(bottom=0)
        axes.grid(True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{report['method']}, {report['config']}, {report['device']}", fontsize=9)
    with replacing(path) as partial_:
        figure.savefig(partial_, dpi=130, format="png")


def write(report: Mapping[str, Any], json_file: str | None, out: str | None) -> list[Path]:
    """The files written: the JSON, and in the folder `out` JSON and plot."""
    name = f"vary_{report['vary']}"
    plot = {f"{name}.png": lambda path: draw(report, path)}
    return write_files(report, json_file, out, f"{name}.json", plot)
