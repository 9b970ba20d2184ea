"""curves.png: losses, AP and pseudo-label quality against iterations, drawn from metrics.jsonl."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssod.engine.records.writing import replacing

# Colours that differ in lightness, too (Okabe and Ito), so that they survive grey printing.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
NETWORK_COLOURS = {"teacher": "#009E73", "student": "#0072B2"}
# Parts of the detector that pseudo labels supervise, and what is drawn where there is none of them.
PART_COLOURS = {"labels": "#000000", "cls": "#000000", "rpn": "#0072B2", "box": "#D55E00"}
CANDIDATES = {"candidates": "#999999"}


def draw_curves(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes the picture, whole or not at all."""
    telemetry = [each for each in records if each["kind"] == "pseudo_labels"]
    parts = _measured_parts(telemetry)
    number = 3 if parts else 2
    figure = Figure(figsize=(5.5 * number, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, number))
    _draw_losses(panels[0], [each for each in records if each["kind"] == "train"])
    _draw_accuracy(panels[1], [each for each in records if each["kind"] == "val"])
    if parts:
        _draw_quality(panels[2], telemetry, parts)
    for axes in panels:
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _draw_losses(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    """The sum in black and each term in a colour; unlabeled terms dashed."""
    names = sorted({key for each in records for key in each if "loss" in key and key != "loss"})
    if any("loss" in each for each in records):
        _line(axes, records, "loss", color="black", linewidth=1.8, label="sum")
    for name in names:
        style = "--" if name.startswith("unsup_") else "-"
        colour = COLOURS[_place(name, names) % len(COLOURS)]
        label = name.replace("_loss", "").replace("_", " ")
        _line(axes, records, name, color=colour, linestyle=style, linewidth=1.1, label=label)
    axes.set_title("loss", loc="left")
    axes.set_ylim(bottom=0)


def _place(name: str, names: Sequence[str]) -> int:
    """The colour's number: the same for the labeled and the unlabeled loss of one kind."""
    kinds = sorted({each.removeprefix("unsup_").removeprefix("sup_") for each in names})
    return kinds.index(name.removeprefix("unsup_").removeprefix("sup_"))


def _draw_accuracy(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    """AP and AP50 of each network, in percent."""
    for network, colour in NETWORK_COLOURS.items():
        for metric, style in (("bbox_mAP", "o-"), ("bbox_mAP_50", "o:")):
            points = [each for each in records if each.get(f"{network}/{metric}") is not None]
            if points:
                values = [100 * each[f"{network}/{metric}"] for each in points]
                label = f"{network} {'AP' if metric == 'bbox_mAP' else 'AP50'}"
                steps = [each["iteration"] for each in points]
                axes.plot(steps, values, style, color=colour, markersize=3, linewidth=1.4, label=label)
    axes.set_title("AP on the validation images, %", loc="left")
    axes.set_ylim(bottom=0)


def _measured_parts(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The colours of the parts whose precision or recall is known; empty without any."""

    def known(part: str) -> bool:
        keys = (f"{part}/precision_50", f"{part}/recall_50")
        return any(each.get(key) is not None for each in records for key in keys)

    found = {part: colour for part, colour in PART_COLOURS.items() if known(part)}
    return found or {part: colour for part, colour in CANDIDATES.items() if known(part)}


def _draw_quality(axes: Axes, records: Sequence[dict[str, Any]], parts: dict[str, str]) -> None:
    """Precision, full, and recall, dotted, of what supervises each part, in percent."""
    percent = [
        {key: value if value is None else 100 * value for key, value in each.items() if "_50" in key}
        | {"iteration": each["iteration"]}
        for each in records
    ]
    for part, colour in parts.items():
        for measure, style in (("precision", "-"), ("recall", ":")):
            look = {"color": colour, "linewidth": 1.4, "label": f"{part} {measure}"}
            _line(axes, percent, f"{part}/{measure}_50", linestyle=style, marker="o", markersize=3, **look)
    axes.set_title("pseudo labels: precision, recall, %", loc="left")
    axes.set_ylim(0, 102)


def _line(axes: Axes, records: Sequence[dict[str, Any]], key: str, **style: Any) -> None:
    """One scalar against iterations; a gap where it was not finite."""
    known = [each for each in records if key in each]
    values = [float("nan") if each[key] is None else each[key] for each in known]
    axes.plot([each["iteration"] for each in known], values, **style)
