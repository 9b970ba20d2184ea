"""Non-maximum suppression: hard, soft, and grouped."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .precision import full_precision, torchvision_operators, wide

if TYPE_CHECKING:  # importing this module stays cheap: torch comes with the first kernel called
    from numpy.typing import NDArray
    from torch import Tensor


@full_precision
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """(K,) int64 indices of the boxes that no better box overlaps by more than the threshold.

    boxes (N, 4) corners in pixels; sides are x2 - x1 + offset. Best score first.
    """
    import torch

    boxes, scores = wide(boxes, scores)
    if offset:  # moving the far corner is the same as adding to each side and each overlap
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    # mmcv compares in float32, torchvision's CPU kernel in float64; an overlap of exactly 0.6, say,
    # is above one's threshold and not above the other's unless the threshold is rounded first.
    threshold = struct.unpack("f", struct.pack("f", iou_threshold))[0]
    kept: Tensor = torchvision_operators().nms(boxes, scores, threshold)
    return kept


def _overlaps(box: NDArray[Any], others: NDArray[Any], offset: int) -> NDArray[Any]:
    """(N,) intersection over union of one (4,) box with (N, 4) others; 0 where both are empty."""
    import numpy as np

    near, far = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    intersection = np.maximum(far - near + offset, 0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2] + offset).prod(axis=1)
    union = (box[2:] - box[:2] + offset).prod() + areas - intersection
    ratio: NDArray[Any] = np.zeros_like(union)
    np.divide(intersection, union, out=ratio, where=union != 0)
    return ratio


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """(K,) int64 indices in order of their decayed scores; dets[:K] (., 5) becomes box and score.

    CPU tensors, as mmcv hands over. method 0 naive, 1 linear, 2 gaussian: Soft-NMS, Eqs. 1 to 3.
    Of equal scores the first comes first; mmcv's order among them depends on its swaps.
    """
    import numpy as np
    import torch

    corners, values = (tensor.numpy() for tensor in wide(boxes, scores))
    alive, kept, kept_scores = np.arange(len(values)), [], []
    while alive.size:
        best = int(values.argmax())
        kept.append(int(alive[best]))
        kept_scores.append(float(values[best]))
        alive, values = np.delete(alive, best), np.delete(values, best)
        overlap = _overlaps(corners[kept[-1]], corners[alive], offset)
        if method == 2:
            decay = np.exp(-(overlap**2) / sigma)
        else:
            decay = np.where(overlap >= iou_threshold, 1 - overlap if method == 1 else 0, 1)
        values = (values * decay).astype(values.dtype)
        alive, values = alive[values >= min_score], values[values >= min_score]
    indices = torch.tensor(kept, dtype=torch.long)
    dets[: len(kept), :4] = boxes[indices]
    dets[: len(kept), 4] = torch.tensor(kept_scores, dtype=dets.dtype)
    return indices


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """One list of indices per kept box: the box, then those it suppressed, by falling score.

    dets (N, 5) CPU rows of box and score. Unlike in `nms` an overlap of just the threshold counts.
    """
    import numpy as np

    rows = wide(dets)[0].numpy()
    order = np.argsort(-rows[:, 4], kind="stable")
    groups: list[list[int]] = []
    while order.size:
        first, rest = order[0], order[1:]
        matched = _overlaps(rows[first, :4], rows[rest, :4], offset=0) >= iou_threshold
        groups.append([int(first), *rest[matched].tolist()])
        order = rest[~matched]
    return groups


OPERATIONS: tuple[Callable[..., Any], ...] = (nms, softnms, nms_match)
