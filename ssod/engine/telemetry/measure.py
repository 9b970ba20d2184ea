"""One measurement: what a method would teach on some unlabeled images, beside their hidden truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ssod.core.labels import BoxLabels
from ssod.data.hidden_truth import HiddenTruth, Truth
from ssod.engine.telemetry.matching import Found, Matches, Quality, joined, match, overlaps, quality
from ssod.models.compiled import as_written
from ssod.models.student import detect, evaluating
from ssod.models.teachers import FrozenTeacher

FLOOR = 0.05  # the score from which a labeler's boxes are looked at: the test's, of most detectors
HEAD = ("cls", "labels")  # what supervises classification, by the names that methods give their masks
AGNOSTIC = ("rpn",)  # parts in which classes mean nothing


@dataclass(frozen=True)
class Measurement:
    """What `measure` finds of the images it looked at.

    parts: {name: Matches} of "candidates" (weak view, before any filter of the strong one; the file's boxes
    where labels come from a file), "projected" (those still in the strong view) and of what the method
    supervises: "rpn", "cls", "box", or "labels" where it has one kind only · detections: the labeler's boxes
    from `FLOOR` on · agnostic: the head part without classes · spread: {"score", "spread", "iou"} of
    each candidate, of methods that measure a spread · left: the spread of those still in the strong view, all
    that is chosen from · known: images with truth.
    """

    parts: dict[str, Matches]
    detections: Matches
    agnostic: Matches
    spread: dict[str, Any] = field(default_factory=dict)
    known: int = 0
    left: list[float] = field(default_factory=list)

    @property
    def images(self) -> int:
        """How many images were looked at."""
        return max((each.images for each in self.parts.values()), default=0)

    @property
    def head(self) -> str | None:
        """The part that supervises classification; None for a method that teaches no label."""
        taught = [name for name in self.parts if name not in ("candidates", "projected")]
        return next((name for name in HEAD if name in taught), taught[0] if taught else None)

    def qualities(self) -> dict[str, Quality]:
        """{part: precision, recall, mean IoU, boxes an image}."""
        return {name: quality(each) for name, each in self.parts.items()}


def labeler_of(model: Any) -> str:
    """The network whose detections become labels: "teacher" or "student"."""
    named = getattr(model.method, "labeler", None)
    if named in ("teacher", "student"):
        return str(named)
    return "student" if model.teacher is None else "teacher"


def next_teacher(model: Any, step: int) -> Any:
    """The network that is the teacher in the step of that 0-based number; None in a model without one.

    Where burn-in ends, `SemiDetector.set_step` copies the student to the teacher before the step: the average
    that there was until then never labels.
    """
    ends = step == model.method.unsup_weight.start > 0
    copied = ends and model.teacher is not None and not isinstance(model.policy, FrozenTeacher)
    return model.student if copied else model.teacher


@contextmanager
def resting(model: Any) -> Iterator[None]:
    """A block in which nothing of the model moves: in eval mode, without gradient, autocast or compiling."""
    device = next(model.parameters()).device.type
    written = nullcontext() if getattr(model, "compilation", None) is None else as_written()
    with evaluating(model), torch.no_grad(), torch.autocast(device, enabled=False), written:
        yield


def measure(
    model: Any,
    batches: Iterable[dict[str, Any]],
    truth: HiddenTruth | None,
    num_classes: int,
    step: int = 0,
) -> Measurement | None:
    """The measurement of a `SemiDetector` on collated batches; None for a method without any label.

    step: the 0-based number of the step that comes next, whose labels are measured. Nothing changes but the
    state of random generators, which is the caller's to preserve.
    """
    tally = _Tally(truth, num_classes)
    teacher = next_teacher(model, step)
    network = teacher if labeler_of(model) == "teacher" else model.student
    with resting(model):
        for batch in batches:
            inputs = model.data_preprocessor(batch, True)["inputs"]
            there = inputs.strong is not None
            labels = model.method.pseudo_labels(model.student, teacher, inputs) if there else None
            detections = None if inputs.weak is None else detect(network, inputs.weak, FLOOR)
            if labels is None:  # Mean Teacher: where the teacher is sure, and nothing more
                if detections is None:
                    return None
                labels = {"weak": detections.score_above(getattr(model.method, "floor", 0.5)), "masks": {}}
            tally.add(batch, labels, detections)
    return tally.measurement()


class _Tally:
    """Matches image by image, and what they add up to."""

    def __init__(self, truth: HiddenTruth | None, num_classes: int) -> None:
        self.truth, self.num_classes = truth, num_classes
        self.parts: dict[str, list[Matches]] = {}
        self.detections: list[Matches] = []
        self.agnostic: list[Matches] = []
        self.spread: dict[str, list[float]] = defaultdict(list)
        self.left: list[float] = []
        self.known = 0

    def add(self, batch: dict[str, Any], labels: dict[str, Any], detections: BoxLabels | None) -> None:
        """Counts a batch: its views' data samples say where the truth is."""
        weak, strong = labels.get("weak"), labels.get("strong")
        masks = {name: mask.cpu() for name, mask in (labels.get("masks") or {}).items()}
        if len(masks) == 1:
            masks = {"labels": next(iter(masks.values()))}
        first, view = (weak, "weak") if weak is not None else (strong, "strong")
        assert first is not None
        first = _on_host(first)
        strong = None if strong is None else _on_host(strong)
        seen = first if detections is None else _on_host(detections)
        for image in range(len(first.boxes)):
            truths = {
                name: None if self.truth is None else self.truth.in_view(batch[name]["data_samples"][image])
                for name in {view, "strong"} & batch.keys()
            }
            self.known += truths[view] is not None
            self._count("candidates", first, image, first.valid, truths[view])
            self.detections.append(self._match(seen, image, seen.valid, truths[view]))
            self._note_spread(first, image, truths[view])
            if strong is not None:
                if weak is not None:
                    self._count("projected", strong, image, strong.valid, truths["strong"])
                if strong.spread is not None:
                    self.left += strong.spread[image, strong.valid[image]].tolist()
                for name, mask in masks.items():
                    self._count(name, strong, image, mask, truths["strong"])
                self._count_head(masks, strong, image, truths["strong"])

    def measurement(self) -> Measurement | None:
        """What was counted; None before anything was."""
        if not self.parts:
            return None
        return Measurement(
            {name: joined(each, self.num_classes) for name, each in self.parts.items()},
            joined(self.detections, self.num_classes),
            joined(self.agnostic, self.num_classes),
            {name: np.asarray(each) for name, each in self.spread.items()},
            self.known,
            self.left,
        )

    def _count(self, part: str, labels: BoxLabels, image: int, mask: Any, truth: Truth | None) -> None:
        found = self._match(labels, image, mask, truth, by_class=part not in AGNOSTIC)
        self.parts.setdefault(part, []).append(found)

    def _count_head(self, masks: dict[str, Any], labels: BoxLabels, image: int, truth: Truth | None) -> None:
        """The head part again without classes: right places under wrong names show there."""
        name = next((each for each in HEAD if each in masks), None)
        if name is not None:
            self.agnostic.append(self._match(labels, image, masks[name], truth, by_class=False))

    def _match(
        self, labels: BoxLabels, image: int, mask: Any, truth: Truth | None, by_class: bool = True
    ) -> Matches:
        return match(_found(labels, image, mask), truth, self.num_classes, by_class=by_class)

    def _note_spread(self, labels: BoxLabels, image: int, truth: Truth | None) -> None:
        """Score, spread and best IoU with any truth box of each candidate, as in Soft Teacher's Fig. 3."""
        if labels.spread is None:
            return
        valid = labels.valid[image]
        self.spread["score"] += labels.scores[image, valid].tolist()
        self.spread["spread"] += labels.spread[image, valid].tolist()
        if truth is None:
            self.spread["iou"] += [float("nan")] * int(valid.sum())
        else:
            there = truth.take(~truth.crowd)
            shares = overlaps(_found(labels, image, valid).boxes, there.boxes, there.crowd)
            self.spread["iou"] += shares.max(axis=1, initial=0.0).tolist()


def _on_host(labels: BoxLabels) -> BoxLabels:
    """The labels' boxes, classes, scores, validity and spread on the host."""
    spread = None if labels.spread is None else labels.spread.float().cpu()
    return BoxLabels(
        labels.boxes.float().cpu(),
        labels.classes.cpu(),
        labels.scores.float().cpu(),
        labels.valid.cpu(),
        spread,
    )


def _found(labels: BoxLabels, image: int, mask: Any) -> Found:
    """The labels of one image that a mask (B, K) or (K,) chooses, as arrays."""
    chosen = mask if mask.dim() == 1 else mask[image]
    return Found(
        labels.boxes[image, chosen].double().numpy(),
        labels.classes[image, chosen].numpy(),
        labels.scores[image, chosen].double().numpy(),
    )
