"""Score thresholds from labeled images that nobody trained on: what tools/advise.py calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssod.data.hidden_truth import HiddenTruth
from ssod.engine import evaluate
from ssod.engine.config import check_names, merge_options, read_config
from ssod.engine.loading import choose_workers
from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.records import result
from ssod.engine.records.writing import make_folder
from ssod.engine.runner import warnings_to_log
from ssod.engine.telemetry.matching import Found, Matches, curve, joined, match, quality
from ssod.engine.telemetry.plots import draw_thresholds
from ssod.engine.testing import load_model, silence
from ssod.errors import UserError
from ssod.registry import register_all_modules

GRID = [round(value, 2) for value in np.arange(0.05, 1.0, 0.05).tolist()]
ALL = "all classes"
RULE = (
    "min_score is the lowest score bound (so the one of the highest recall) at which precision at IoU 0.5 is "
    "at least min_precision"
)
Advice = dict[str, Any]


def advise(
    config_path: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    which: str | None = None,
    min_precision: float = 0.9,
    options: Mapping[str, Any] | None = None,
) -> Advice:
    """What `thresholds.json` in the folder `out` holds; `thresholds.png` beside it shows the curves.

    Precision and recall of a network's detections on the validation images, for each class and for all
    together, and the bound that the rule suggests. which: "teacher" or "student", by default the one to ship.
    Raises UserError for bad input.
    """
    if not 0 < min_precision <= 1:
        raise UserError(f"--min-precision {min_precision}: a share above 0, up to 1")
    register_all_modules()
    with warnings_to_log():
        config = read_config(config_path)
        check_names(config, config_path)
        merge_options(config, options or {})
        if not config.get("val_dataloader") or not config.get("model"):
            raise UserError(f"config {config_path} has no model and val_dataloader, which thresholds need")
        choose_workers(config)
        silence()
        model, content = load_model(config, checkpoint)
        [network] = evaluate.choose_networks(model, which or model.which[0])
        folder = Path(out)
        make_folder(folder)
        with mistakes_in_config(), evaluate.prints_to(None):
            dataloader = Runner.build_dataloader(config.val_dataloader, seed=0)
        evaluate.check_classes(model, dataloader.dataset)
        classes = tuple(dataloader.dataset.metainfo["classes"])
        matches = match_all(model, network, dataloader, classes)
    advice: Advice = {
        "schema": 1,
        "config": str(config_path),
        "checkpoint": str(checkpoint),
        "iteration": content.get("meta", {}).get("iter"),
        "which": network,
        "num_images": matches.images,
        "rule": RULE,
        "min_precision": min_precision,
        **suggestions(matches, classes, min_precision),
    }
    result.write_json(folder / "thresholds.json", advice)
    draw_thresholds(advice, folder / "thresholds.png")
    return advice


def match_all(model: Any, network: str, dataloader: Any, classes: Sequence[str]) -> Matches:
    """The detections of a network on all images of a loader, matched with the annotations of its dataset."""
    truth = HiddenTruth(dataloader.dataset.ann_file, classes)
    found = []
    model.eval()
    with torch.no_grad():
        for batch in dataloader:
            data = model.data_preprocessor(batch, False)
            for sample in model.predict(data["inputs"], data["data_samples"], which=network):
                boxes = sample.pred_instances
                parts = (boxes.bboxes.double(), boxes.labels, boxes.scores.double())
                detections = Found(*(each.cpu().numpy() for each in parts))
                found.append(match(detections, truth.of(sample.img_path), len(classes)))
    return joined(found, len(classes))


def suggestions(matches: Matches, classes: Sequence[str], min_precision: float) -> Advice:
    """`all` and `classes`: {name: suggestion and curve}."""
    each = {name: suggest(matches.of_class(number), min_precision) for number, name in enumerate(classes)}
    return {"all": suggest(matches, min_precision), "classes": each}


def suggest(matches: Matches, min_precision: float) -> Advice:
    """The suggested bound with its precision and recall, None where none keeps the rule; and a curve.

    min_score lies between the lowest score that is let in and the next one below, so that "above" and "from
    ... on" mean the same; where nothing lies below, at most 0.001 under the lowest, for nobody saw what is
    further down · above: how many boxes it lets in, few are little evidence · best_precision: the highest
    there is, over bounds that let anything in · curve: bound, precision and recall at each of `GRID`.
    """
    line = curve(matches)
    kept = np.flatnonzero(line.precision >= min_precision)
    chosen = None if not len(kept) else int(kept[-1])
    known = line.precision[np.isfinite(line.precision)]
    return {
        "truth": int(matches.truth.sum()),
        "found": len(matches.scores),
        "min_score": None if chosen is None else _bound(line.scores, chosen),
        "precision": None if chosen is None else float(line.precision[chosen]),
        "recall": None if chosen is None else float(line.recall[chosen]),
        "above": None if chosen is None else int((matches.scores >= line.scores[chosen]).sum()),
        "best_precision": float(known.max()) if len(known) else None,
        "curve": [[bound, *_above(matches, bound)] for bound in GRID],
    }


def _bound(scores: Any, chosen: int) -> float:
    """A bound that lets in the falling scores up to number `chosen`, and none of those after it."""
    if chosen + 1 < len(scores):
        return float(scores[chosen] + scores[chosen + 1]) / 2
    return (math.ceil(float(scores[chosen]) * 1000) - 1) / 1000


def _above(matches: Matches, bound: float) -> tuple[float, float]:
    """Precision and recall of the boxes with a score above the bound."""
    kept = matches.scores > bound
    names = ("scores", "classes", "hit", "counted", "iou")
    above = Matches(
        **{n: getattr(matches, n)[kept] for n in names}, truth=matches.truth, images=matches.images
    )
    return quality(above)[:2]


def show(advice: Advice, console: Console) -> None:
    """Prints the table, the rule below it."""
    table = Table(title=f"{advice['which']}, {advice['num_images']} labeled images")
    for name in ("class", "truth", "min_score", "boxes above", "precision", "recall", "best precision"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for name, one in [*advice["classes"].items(), (ALL, advice["all"])]:
        cells = [one[key] for key in ("min_score", "above", "precision", "recall", "best_precision")]
        shown = ("-" if v is None else f"{v:.3f}" if isinstance(v, float) else str(v) for v in cells)
        table.add_row(Text(name), str(one["truth"]), *shown)
    console.print(table)
    console.print(f"{advice['rule']} = {advice['min_precision']:g}; - where no bound does", markup=False)
