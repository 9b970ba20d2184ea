"""Checks of what becomes a pseudo label, and on which views. One function for each finding."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ssod.data.augment import DROPOUTS
from ssod.data.checkup.findings import Finding, fails, hurts, lies, some
from ssod.engine.checkup.setup import Setup, walk
from ssod.engine.offline.stage_plan import Plan
from ssod.errors import UserError

BOUNDS = ("min_score", "rpn_min_score", "cls_min_score", "box_min_score")
CHANCE = 1.5  # times 1 / (C + 1), the score of a softmax that knows nothing
# mmdet's transforms that move pixels and leave the homography as it was.
UNTRACKED = frozenset(
    (
        *("RandomAffine", "RandomCenterCropPad", "MinIoURandomCrop", "Expand", "RandomShift", "CopyPaste"),
        *("Mosaic", "MixUp", "CachedMosaic", "CachedMixUp", "CenterCrop"),
    )
)


def _bounds(setup: Setup) -> Iterator[tuple[str, float]]:
    """(option, score) of each selection: the highest that it asks for."""
    for name in BOUNDS:
        value = setup.option(name)
        if isinstance(value, Mapping):
            value = value.get("high", value.get("min_score", 0.9))
        if isinstance(value, (int, float)):
            yield name, float(value)


def bound_never_reached(setup: Setup) -> Iterator[Finding]:
    """A bound that no score exceeds."""
    names = [f"{name}={value:g}" for name, value in _bounds(setup) if value >= 1]
    if names:
        yield lies(
            "bound-never-reached",
            "model.method",
            f"{some(names)}: no score is above it, so that nothing is ever taught",
            "use a score below 1",
        )


def bound_near_chance(setup: Setup) -> Iterator[Finding]:
    """A bound that scores of a network which knows nothing reach."""
    chance = 1 / (setup.num_classes + 1)
    names = [f"{name}={value:g}" for name, value in _bounds(setup) if value <= CHANCE * chance]
    if names and setup.num_classes:
        yield hurts(
            "bound-near-chance",
            "model.method",
            f"{some(names)}: with {setup.num_classes} classes and background chance gives {chance:.2g}: "
            "nearly every box is taught",
            "begin with 0.7 to 0.9",
        )


def bound_below_floor(setup: Setup) -> Iterator[Finding]:
    """A bound below the candidates' floor: the floor decides, and the option does nothing."""
    given = setup.option("floor")
    floor = float(given) if isinstance(given, (int, float)) else 0.0
    names = [f"{name}={value:g}" for name, value in _bounds(setup) if value < floor]
    if names:
        yield hurts(
            "bound-below-floor",
            "model.method",
            f"{some(names)} below floor={floor:g}: candidates start at the floor, and the bound does nothing",
            "lower the floor, or raise the bound",
        )


def hidden_boxes(setup: Setup) -> Iterator[Finding]:
    """A score_thr of a one-stage detector above what the method asks for."""
    test = setup.detector.get("test_cfg") or {}
    bound = (test.get("rcnn") or test).get("score_thr") or 0.0
    low = [f"{name}={value:g}" for name, value in _bounds(setup) if value < bound]
    if low and not setup.detector.get("roi_head"):
        yield fails(
            "score-threshold-hides-boxes",
            "model.detector.test_cfg.score_thr",
            f"{bound:g} hides boxes that the method asks for ({some(low)})",
            "lower score_thr",
        )


def _views(setup: Setup) -> Iterator[tuple[str, list[Any]]]:
    """(name, pipeline) of the weak and the strong view; of the strong one alone for labels from a file."""
    unlabeled = setup.part("unlabeled")
    for step in unlabeled.config.get("pipeline") or () if unlabeled is not None else ():
        if step.get("type") == "TwoViews":
            yield from (("weak", step.get("weak") or []), ("strong", step.get("strong") or []))
            return
    if unlabeled is not None:
        yield "strong", list(unlabeled.config.get("pipeline") or ())


def untracked_geometry(setup: Setup) -> Iterator[Finding]:
    """Transforms that move pixels without a word to the homography."""
    for view, pipeline in _views(setup):
        names = [name for _, node in walk(pipeline, view) for name in _untracked(node)]
        if names:
            yield lies(
                "untracked-geometry",
                f"unlabeled: {view} view",
                f"{some(sorted(set(names)))}: pixels move, homography_matrix stays, and pseudo boxes land in "
                "the wrong place",
                "use TrackedAlbumentations, or mmdet's Rotate, Shear and Translate",
            )


def _untracked(step: Mapping[str, Any]) -> Iterator[str]:
    """What moves pixels untracked in one transform's config."""
    name = str(step.get("type"))
    if name in UNTRACKED:
        yield name
    if name == "Albu":
        albumentations = importlib.import_module("albumentations")
        for _, node in walk(list(step.get("transforms") or ()), "transforms"):
            kind = getattr(albumentations, str(node.get("type")), None)
            colour = isinstance(kind, type) and issubclass(
                kind, (albumentations.ImageOnlyTransform, albumentations.BaseCompose)
            )
            if not colour and str(node.get("type")) not in DROPOUTS:
                yield f"Albu({node.get('type')})"


def views_alike(setup: Setup) -> Iterator[Finding]:
    """A strong view that is no stronger than the weak one."""
    views = dict(_views(setup))
    if "weak" in views and views["weak"] == views["strong"]:
        mend = "give the strong one colour, geometry and erasing: two_views(weak(), strong())"
        yield hurts("views-alike", "unlabeled", "the strong view is made like the weak one", mend)


def labels_in_file(setup: Setup) -> Iterator[Finding]:
    """Offline labels that are not there and that no stage would write."""
    train = (setup.config.get("train_dataloader") or {}).get("dataset") or {}
    for source in train.get("datasets") or [train]:
        if source.get("type") != "PseudoLabeled":
            continue
        path = source.get("labels")
        if path is None and "stages" not in setup.config:
            what, mend = (
                "PseudoLabeled without labels, and no stages",
                "name the file, or add stages=dict(...)",
            )
            yield fails("pseudo-labels-missing", "train_dataloader.dataset", what, mend)
        elif path is not None and not Path(path).is_file():
            mend = "write it with tools/pseudo_label.py, or correct the path"
            yield fails("pseudo-labels-missing", "train_dataloader.dataset", f"no file {path}", mend)


def plan_of_stages(setup: Setup) -> Iterator[Finding]:
    """Stages that can't be done."""
    if "stages" in setup.config:
        try:
            Plan.of(setup.config)
        except UserError as error:
            yield fails("stages-refused", "stages", error.one_line, "compare with configs/stac")


CHECKS: tuple[Callable[[Setup], Iterator[Finding]], ...] = (
    bound_never_reached,
    bound_near_chance,
    bound_below_floor,
    hidden_boxes,
    untracked_geometry,
    views_alike,
    labels_in_file,
    plan_of_stages,
)
