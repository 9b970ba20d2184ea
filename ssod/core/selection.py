"""Selection: which pseudo labels are learned from, by a fixed score or one for each class, or ignored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from ..errors import UserError, check_choice
from .labels import BoxLabels


class Selection(nn.Module, ABC):
    """A policy: labels (B, K) -> the same labels, fewer of them valid, some perhaps ignored.

    floor: the lowest score that the policy looks at; a detector need not hand it anything below, and what a
    method has cut off above it, the policy does not see. State lives in buffers, moved in training mode only.
    """

    floor: float
    needs: frozenset[str] = frozenset()  # of a detector, as in methods/base.py

    @abstractmethod
    def forward(self, labels: BoxLabels) -> BoxLabels:
        """The labels with `valid`, and perhaps `ignored`, as the policy has it."""

    @staticmethod
    def of(spec: Policy) -> Selection:
        """A policy from what a config may hold: a score, a dict with `type` and options, or a Selection.

        `type` is the name of a class that derives from Selection, here or in a module of your own. Raises
        UserError for an unknown type or option.
        """
        if isinstance(spec, Selection):
            return spec
        if isinstance(spec, int | float):
            return ScoreAbove(spec)
        options = dict(spec) if isinstance(spec, Mapping) else {"type": spec}
        name = options.pop("type", None)
        known: dict[Any, Callable[..., Selection]] = {
            each.__name__: each for each in Selection.__subclasses__()
        }
        if name not in known:
            raise UserError(
                f"selection {name!r} is unknown; use a score or a dict of type {', '.join(known)}"
            )
        try:
            return known[name](**options)
        except TypeError as error:
            raise UserError(f"selection {spec!r}: {error}") from error


class ScoreAbove(Selection):
    """Labels with a score above `min_score`, τ of FixMatch and Soft Teacher; `inclusive`: or at it (STAC)."""

    def __init__(self, min_score: float, inclusive: bool = False) -> None:
        super().__init__()
        if not 0 <= min_score <= 1:
            raise UserError(f"min_score is {min_score}; a score lies in [0, 1]")
        self.min_score = self.floor = min_score
        self.inclusive = inclusive

    def forward(self, labels: BoxLabels) -> BoxLabels:
        """The labels above the score."""
        if self.inclusive:
            return labels.where(labels.scores >= self.min_score)
        return labels.score_above(self.min_score)


class IgnoreBand(Selection):
    """Labels with a score of at least `high`; those in [low, high) are neither positive nor background.

    What overlaps an ignored box is left out of training as `matching.assign` says. Raises UserError unless
    0 <= low < high.
    """

    needs = frozenset({"two_stage"})  # mmdet's other assigners know such boxes in other ways, or not at all

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        if not 0 <= low < high:
            raise UserError(f"IgnoreBand: low={low} and high={high}; use 0 <= low < high")
        self.low = self.floor = low
        self.high = high

    def forward(self, labels: BoxLabels) -> BoxLabels:
        """The labels from `high` on, with those of the band ignored."""
        sure = labels.scores >= self.high
        band = (labels.scores >= self.low) & ~sure & labels.valid
        return replace(labels.where(sure), ignored=band)


class ClassAdaptive(Selection):
    """Labels above a threshold of their class: curriculum pseudo labeling (FlexMatch, arXiv 2110.08263).

    `min_score` is τ, the threshold of the class learned best; the others' are lower:
        T(c) = τ · M(β(c)),  M(x) = x / (2 - x),  β(c) = σ(c) / max(max_c σ(c), unused)
    σ(c) counts the labels of class c above τ, n(c) all that are seen, both as moving averages with `decay`
    (boxes have no identity from step to step: the paper keeps the last prediction of every image), and
    unused = Σ n - Σ σ. That is effect "count", which the paper bounds to balanced classes: a rare class
    would always look unlearned. Effect "share", the default, divides by how many there are: σ(c) / n(c) in
    the place of σ(c) and unused / Σ n in that of unused. No T(c) is below `lowest`.

    num_classes: C, which must be the detector's. Each rank counts its own labels; the counts are averaged
    over all ranks, so thresholds are the same on each.
    """

    counts: Tensor  # (2, C) float32: n and σ

    def __init__(
        self,
        num_classes: int,
        min_score: float = 0.9,
        lowest: float = 0.5,
        decay: float = 0.999,
        effect: Literal["share", "count"] = "share",
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise UserError(f"ClassAdaptive: num_classes is {num_classes}; give the number of the detector")
        if not 0 <= lowest <= min_score:
            raise UserError(f"ClassAdaptive: lowest={lowest}; use 0 <= lowest <= min_score={min_score}")
        if not 0 <= decay < 1:
            raise UserError(f"ClassAdaptive: decay is a share in [0, 1), got {decay}")
        check_choice("ClassAdaptive", "effect", effect, ("share", "count"))
        self.num_classes = num_classes
        self.min_score = min_score
        self.lowest = self.floor = lowest
        self.decay = decay
        self.effect = effect
        self.register_buffer("counts", torch.zeros(2, num_classes))

    def thresholds(self) -> Tensor:
        """T(c) (C), what a score of each class has to exceed now."""
        seen, learned = self.counts
        unused = seen.sum() - learned.sum()
        tiny = torch.finfo(torch.float32).tiny
        if self.effect == "share":
            unused = (unused + tiny) / (seen.sum() + tiny)  # 1 before anything is seen
            learned = learned / seen.clamp(min=tiny)
        beta = learned / torch.maximum(learned.max(), unused).clamp(min=tiny)
        thresholds: Tensor = self.min_score * beta / (2 - beta)
        return thresholds.clamp(min=self.lowest)

    def forward(self, labels: BoxLabels) -> BoxLabels:
        """The labels above the thresholds as they were before this batch, which then counts, too."""
        chosen = labels.score_above(self.thresholds()[labels.classes])
        if self.training:
            self.count(labels)
        return chosen

    @torch.no_grad()
    def count(self, labels: BoxLabels) -> None:
        """Moves the counts towards those of a batch, averaged over all ranks without waiting for a device."""
        classes = torch.arange(self.counts.shape[1], device=labels.classes.device)
        member = (labels.classes[..., None] == classes) & labels.valid[..., None]  # (B, K, C)
        sure = member & (labels.scores > self.min_score)[..., None]
        found = torch.stack([member, sure]).float().sum(dim=(1, 2))
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(found)
            found /= distributed.get_world_size()
        self.counts.lerp_(found, 1 - self.decay)


Policy = float | Mapping[str, Any] | Selection  # what a config may hold in the place of a score
