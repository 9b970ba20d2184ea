"""The figures as tables on the console and in Markdown, and as a picture."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from ssod.engine.records.curves import COLOURS
from ssod.engine.records.result import write_json
from ssod.engine.records.writing import replacing, write_text

Rows = list[list[str]]
WIDTH = 160  # characters of a line where the output goes to a file
PLACES = 12  # of waits, shown


def tables(report: dict[str, Any], waits_of: Sequence[str]) -> list[tuple[str, list[str], Rows]]:
    """(title, heads, rows) of each table of a report; where these steps would wait, place by place."""
    names, sizes = list(report["seconds"]), report["memory"]["bytes"]
    steps: Rows = []
    for name in names:
        took, waits = report["seconds"][name], report["waits"].get(name, {})
        found = report["boxes"].get(name, {})
        steps.append(
            [
                name,
                f"{took['median']:.3f} ({took['low']:.3f} to {took['high']:.3f})",
                f"{report['images_per_second'][name]:.2f}",
                f"{sizes[name] / 2**20:.0f}" if name in sizes else "",
                str(report["operators"].get(name, "")),
                str(waits.get("total", "")),
                ", ".join(f"{key} {value:.1f}" for key, value in found.items()),
            ]
        )
    heads = ["step", "seconds", "images/s", "peak MiB", "operators", "waits", "boxes an image"]
    ratios = [
        [name, f"{value:.3f}", "{:.3f} to {:.3f}".format(*report["ratio_spreads"][name])]
        for name, value in report["ratios"].items()
    ]
    parts = [
        [name, f"{each['seconds']:.4f}", f"{100 * each['share']:.1f} %"]
        for name, each in report["phases"].items()
    ]
    made = [("steps", heads, steps), ("ratios", ["ratio", "median", "low to high"], ratios)]
    made.append((f"phases of {report['phases_of']}", ["phase", "seconds", "share"], parts))
    for name in waits_of:
        places = report["waits"].get(name, {"places": []})["places"]
        rows = [
            [f"{each['file']}:{each['line']}", each["operator"], str(each["count"])]
            for each in places[:PLACES]
        ]
        left = sum(each["count"] for each in places[PLACES:])
        rows += [[f"{len(places) - PLACES} more places", "", str(left)]] if left else []
        made.append((f"what would wait for a GPU in {name}", ["place", "operator", "times"], rows))
    return [(title, head, rows) for title, head, rows in made if rows]


def sentences(report: dict[str, Any]) -> list[str]:
    """What was measured, in lines of text."""
    batch, loader = report["batch"], report["loader"]
    sizes = ", ".join(f"{width}x{height}" for width, height in report["sizes"])
    lines = [
        f"{report['config']} on {report['device']}: {batch['labeled']} labeled + {batch['unlabeled']} "
        f"unlabeled images of {sizes} px, {report['rounds']} rounds, {report['clock']} clock",
        f"precision: ssod {report['precision']['ssod']}, mmdet {report['precision']['mmdet']}; weights: "
        f"{report['weights']}; RoIAlign of mmdet: {report['kernels']['mmdet']}; memory: "
        f"{report['memory']['measure']}",
    ]
    if loader is not None:
        lines.append(
            f"loader, {loader['workers']} workers: {loader['images_per_second']:.1f} images/s; a step waits "
            f"{loader['wait_per_step']:.3f} s for it"
        )
    return [*lines, *report["notes"]]


def show(lines: Sequence[str], found: Sequence[tuple[str, list[str], Rows]]) -> None:
    """Prints tables and text."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH
    for title, heads, rows in found:
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for number, head in enumerate(heads):
            table.add_column(head, justify="left" if number == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in lines:
        console.print(line, markup=False)


def markdown(title: str, lines: Sequence[str], found: Sequence[tuple[str, list[str], Rows]]) -> str:
    """The same as a page."""
    text = [f"# {title}", "", *(f"- {line}" for line in lines)]
    for name, heads, rows in found:
        text += ["", f"## {name}", "", _row(heads), _row(["---"] * len(heads)), *map(_row, rows)]
    return "\n".join(text) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def draw_phases(report: dict[str, Any], path: Path) -> None:
    """Writes the bar chart of phases: seconds of a step, the longest part first."""
    parts = sorted(report["phases"].items(), key=lambda item: item[1]["seconds"])
    figure = Figure(figsize=(8, 0.36 * len(parts) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    bars = axes.barh([name for name, _ in parts], [each["seconds"] for _, each in parts], color=COLOURS[0])
    axes.bar_label(bars, [f"{100 * each['share']:.1f} %" for _, each in parts], padding=3, fontsize=8)
    axes.set_xlabel("seconds of a step")
    axes.margins(x=0.12)
    axes.set_title(f"{report['phases_of']} of {report['config']}", loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def write(report: dict[str, Any], json_file: str | None, out: str | None) -> list[Path]:
    """The files written: the JSON, and in the folder `out` JSON, Markdown and the chart."""

    def page(path: Path) -> None:
        found = tables(report, list(report["waits"]))
        text = markdown(f"Benchmark of {report['config']}", sentences(report), found)
        write_text(path, text)

    others: dict[str, Callable[[Path], object]] = {"benchmark.md": page}
    if report["phases"]:
        others["phases.png"] = lambda path: draw_phases(report, path)
    return write_files(report, json_file, out, "benchmark.json", others)


def write_files(
    report: Mapping[str, Any],
    json_file: str | None,
    out: str | None,
    name: str,
    others: Mapping[str, Callable[[Path], object]],
) -> list[Path]:
    """The files written: the report as `json_file`, in the folder `out` as `name`, and what others write."""
    written = [] if json_file is None else [Path(json_file)]
    folder = None if out is None else Path(out)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        written.append(folder / name)
    for path in written:
        write_json(path, dict(report))
    if folder is not None:
        for other, draw in others.items():
            draw(folder / other)
            written.append(folder / other)
    return written
