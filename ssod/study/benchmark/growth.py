"""What our method's step costs as one thing grows: boxes, classes, image size, unlabeled images, copies."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from mmengine.config import Config

from ssod.engine.records import result
from ssod.errors import UserError
from ssod.methods.base import Method
from ssod.models.jitter import BoxJitter
from ssod.study.benchmark import batches, memory, ours, rounds
from ssod.study.benchmark.contestants import Contestant
from ssod.study.benchmark.forcing import forced
from ssod.study.benchmark.preparation import clock_of, device_name, opened, waiting_for
from ssod.study.benchmark.settings import Settings, parse_size

Varied = Literal["boxes", "classes", "size", "ratio", "jitters"]
VALUES: dict[str, tuple[str, ...]] = {
    "boxes": ("0", "15", "100", "500"),
    "classes": ("1", "20", "80", "365", "1203"),
    "size": ("320x240", "640x480", "960x720", "1280x960"),
    "ratio": ("1", "2", "4", "8"),
    "jitters": ("2", "5", "10", "20"),
}
LEAST = {"boxes": 0, "classes": 1, "ratio": 1, "jitters": 2}
UNITS = {
    "boxes": "pseudo boxes an image",
    "classes": "classes",
    "size": "megapixels an image",
    "ratio": "unlabeled images for each labeled one",
    "jitters": "jittered copies of a box",
}


def amounts(what: str, values: Sequence[str]) -> list[float]:
    """The values as numbers; megapixels for sizes. UserError for one that can't be."""
    if what == "size":
        return [width * height / 1e6 for width, height in map(parse_size, values)]
    least = LEAST[what]
    wrong = [each for each in values if not each.isascii() or not each.isdigit() or int(each) < least]
    if wrong:
        raise UserError(f"--values {wrong[0]}: {what} are whole numbers of at least {least}")
    return [float(each) for each in values]


def vary(
    settings: Settings,
    what: Varied,
    values: Sequence[str] | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Seconds and peak memory of our method's step at each value, steps in turns; see `points`."""
    values = list(values or VALUES[what])
    scale = amounts(what, values)
    say("building models and batches")
    with opened(settings, int(max(scale)) if what == "ratio" else 0) as config:
        made = points(config, settings, what, values)
        wait = waiting_for(settings.on)
        seconds = rounds.interleave(made, settings.rounds, wait, clock_of(settings), say)
        say("memory")
        taken = [memory.of(each, settings.on) for each in made]
        method = type(made[0].model.method).__name__
        precision = str(config.optim_wrapper.precision)
    found = [rounds.summary(seconds[each.name]) for each in made]
    return {
        "schema": 1,
        "config": settings.config,
        "method": method,
        "git": result.git_hash(),
        "versions": result.versions(),
        "device": device_name(settings.on),
        "precision": precision,
        "rounds": settings.rounds,
        "clock": settings.clock,
        "vary": what,
        "unit": UNITS[what],
        "values": values,
        "amounts": scale,
        "seconds": found,
        "memory": {"measure": memory.how(settings.on), "bytes": taken},
        "exponents": {
            "seconds": exponent(scale, [each["median"] for each in found]),
            "memory": exponent(scale, taken),
        },
    }


def exponent(amounts: Sequence[float], costs: Sequence[float]) -> float | None:
    """The largest power of the amount that the cost grew with between neighbours; 1 is linear.

    A part that grows linearly beside one that doesn't grow is below 1. None for fewer than two amounts
    above 0.
    """
    pairs = sorted((amount, cost) for amount, cost in zip(amounts, costs, strict=True) if amount > 0)
    steps = [
        math.log(after[1] / before[1]) / math.log(after[0] / before[0])
        for before, after in pairwise(pairs)
        if after[0] > before[0] and before[1] > 0
    ]
    return max(steps, default=None)


def points(config: Config, settings: Settings, what: str, values: Sequence[str]) -> list[Contestant]:
    """A contestant for each value. One thing grows, the others stay.

    The teacher's labels are replaced by `settings.boxes` sure ones an image (or as many as the value says)
    after it has found its own, so that all of them teach every branch, whatever the weights make of them.
    """
    if not config.model.get("method"):
        raise UserError(f"--vary {what}: config {settings.config} has no model.method; give that of a method")
    counts = batches.chosen_counts(config, settings.batch)
    if len(counts) != 2:
        raise UserError(f"--vary {what}: config {settings.config} has no unlabeled images to vary with")
    made = []
    model = entry = None
    for value in values:
        size = parse_size(value) if what == "size" else settings.size
        here = (counts[0], counts[0] * int(value)) if what == "ratio" else counts
        if model is None:
            model = ours.build(config, settings)
            _check(model, what)
        if what == "classes":
            config.model.detector.roi_head.bbox_head.num_classes = int(value)
            model = ours.build(config, settings)
        if entry is None or what in ("classes", "size", "ratio"):
            loaded = batches.load(config, here, size, model.method)
            if what == "classes" and loaded.semi is not None:
                batches.limit_classes(loaded.semi, int(value))
            entry = next(each for each in ours.contestants(config, model, loaded) if each.name == "method")
        options: dict[str, int] = {what: int(value)} if what in ("boxes", "jitters") else {}
        around = partial(forced, model, **({"boxes": settings.boxes} | options))
        made.append(replace(entry, name=value, around=around))
    return made


def _check(model: Any, what: str) -> None:
    """Raises UserError where the method has nothing that could be varied so."""
    method, name = model.method, type(model.method).__name__
    if what == "jitters" and not isinstance(getattr(method, "jitter", None), BoxJitter):
        raise UserError(f"--vary jitters: method {name} jitters no boxes; SoftTeacher does")
    if what == "classes" and not hasattr(model.student, "roi_head"):
        raise UserError("--vary classes: this detector has no roi_head whose num_classes could be set")
    labels = type(method).pseudo_labels is not Method.pseudo_labels and not method.needs_file
    if what == "boxes" and not labels:
        raise UserError(f"--vary boxes: method {name} asks no network for boxes; SoftTeacher and FixMatch do")
