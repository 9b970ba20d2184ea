"""BoxJitter: how far a network's regression disagrees with itself about a box that is moved a little."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from ..core.geometry import jitter_boxes
from ..core.labels import BoxLabels
from ..core.reliability import Variant, box_spread
from ..errors import UserError, check_choice
from . import frcnn
from .views import View


@dataclass(frozen=True)
class BoxJitter:
    """Soft Teacher's box jittering (arXiv 2106.09018, section 3.3, Eq. 6 to 8).

    num_jitters: copies of each box, at least 2 · jitter_fraction: how far they move, in sides of the box ·
    jitter: "normal" (the fraction is a standard deviation; released code) or "uniform" within ± the fraction
    (paper) · spread_norm: see `core.reliability.box_spread`. Raises UserError for other values.
    """

    num_jitters: int
    jitter_fraction: float
    jitter: Literal["normal", "uniform"] = "normal"
    spread_norm: Variant = "code"

    def __post_init__(self) -> None:
        if self.num_jitters < 2:
            raise UserError(f"BoxJitter: num_jitters is {self.num_jitters}; a spread needs at least 2 copies")
        check_choice("BoxJitter", "jitter", self.jitter, ("normal", "uniform"))
        check_choice("BoxJitter", "spread_norm", self.spread_norm, ("code", "paper"))

    @torch.no_grad()
    def measure(
        self, detector: frcnn.Detector, pyramid: frcnn.Features, labels: BoxLabels, view: View
    ) -> BoxLabels:
        """The labels (B, K) with their spread: every copy refined by the RoI head, for the label's class."""
        images, slots = labels.valid.shape
        copies = jitter_boxes(
            labels.boxes, self.num_jitters, self.jitter_fraction, uniform=self.jitter == "uniform"
        ).masked_fill(~labels.valid[:, None, :, None], 0.0)  # (B, J, K, 4)
        classes = labels.classes[:, None].expand(-1, self.num_jitters, -1)
        refined = frcnn.refine_boxes(detector, pyramid, copies.flatten(1, 2), classes.flatten(1), view.size)
        spread, _ = box_spread(refined.view(images, self.num_jitters, slots, 4), self.spread_norm)
        return replace(labels, spread=spread)
