"""What heads regress: boxes as codes relative to others, and back. mmdet's coders, in fewer operators."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

CLIP = abs(math.log(16 / 1000))  # how much larger or smaller than its box a decoded one can be, a logarithm


def encode(coder: Any, boxes: Tensor, targets: Tensor) -> Tensor:
    """Codes (..., 4) of targets (..., 4) relative to boxes (..., 4), none of them without sides."""
    if not _is_known(coder):
        codes: Tensor = coder.encode(boxes.reshape(-1, 4), targets.reshape(-1, 4))
        return codes.view_as(boxes)
    (centre, sides), (wanted_centre, wanted_sides) = _centred(boxes), _centred(targets)
    shift = _scaled((wanted_centre - centre) / sides, coder, 0)
    return torch.cat([shift, _scaled((wanted_sides / sides).log(), coder, 2)], dim=-1)


def decode(coder: Any, boxes: Tensor, codes: Tensor) -> Tensor:
    """Boxes (..., 4) moved by codes (..., 4)."""
    if not _is_known(coder):
        moved: Tensor = coder.decode(boxes.reshape(-1, 4), codes.reshape(-1, 4))
        return moved.view_as(boxes)
    shift, growth = codes[..., :2], codes[..., 2:]
    centre, sides = _centred(boxes)
    centre = centre + sides * _unscaled(shift, coder, 0)
    half = sides * _unscaled(growth, coder, 2).clamp(min=-CLIP, max=CLIP).exp() * 0.5
    return torch.cat([centre - half, centre + half], dim=-1)


def _is_known(coder: Any) -> bool:
    """Whether it is mmdet's DeltaXYWHBBoxCoder, which treats x as y and width as height."""
    if type(coder).__name__ != "DeltaXYWHBBoxCoder" or coder.use_box_type or coder.add_ctr_clamp:
        return False
    return all(each[0] == each[1] and each[2] == each[3] for each in (coder.means, coder.stds))


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and sides (..., 2) px."""
    low, high = torch.split(boxes.float(), 2, dim=-1)
    return (low + high) * 0.5, high - low


def _scaled(codes: Tensor, coder: Any, first: int) -> Tensor:
    """Codes less their mean, over their deviation; both are numbers, so nothing is copied to the device."""
    mean, deviation = coder.means[first], coder.stds[first]
    codes = codes if mean == 0 else codes - mean
    return codes if deviation == 1 else codes / deviation


def _unscaled(codes: Tensor, coder: Any, first: int) -> Tensor:
    """`_scaled` taken back."""
    mean, deviation = coder.means[first], coder.stds[first]
    codes = codes if deviation == 1 else codes * deviation
    return codes if mean == 0 else codes + mean
