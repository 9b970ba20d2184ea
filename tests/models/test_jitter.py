"""Box jitter in closed form, box by box; each of its options by itself."""

from typing import Any

import pytest
import torch
from reference import boxes as reference
from reference import detectors

from ssod.errors import UserError
from ssod.models import frcnn
from ssod.models.jitter import BoxJitter


@pytest.mark.parametrize("norm", ["code", "paper"])
@pytest.mark.parametrize("jitter", ["normal", "uniform"])
@torch.no_grad()
def test_spread_in_closed_form(registered: None, jitter: Any, norm: Any) -> None:
    """Jitter each candidate by the same random numbers, refine, and measure box by box."""
    teacher, view = detectors.build(detectors.config(), 1).eval(), detectors.semi_batch().weak
    assert view is not None
    found, pyramid = frcnn.detect(teacher, view, 0.3)
    torch.manual_seed(3)
    labels = BoxJitter(5, 0.06, jitter, norm).measure(teacher, pyramid, found, view)
    assert labels.spread is not None and labels.boxes is found.boxes and labels.valid.sum() > 5
    torch.manual_seed(3)
    shape = (len(labels.valid), 5, labels.valid.shape[1], 4)
    unit = torch.rand(shape) * 2 - 1 if jitter == "uniform" else torch.randn(shape)
    for image, slot in labels.valid.nonzero().tolist():
        box = labels.boxes[image, slot]
        side = (box[2:] - box[:2]).clamp(min=1).repeat(2)
        copies = box + 0.06 * side * unit[image, :, slot]
        refined = frcnn.refine_boxes(
            teacher,
            tuple(level[image : image + 1] for level in pyramid),
            copies[None],
            labels.classes[image, slot].expand(1, 5),
            view.size[image : image + 1],
        )
        expected = reference.spread(refined[0].tolist(), norm)
        assert labels.spread[image, slot].item() == pytest.approx(expected, rel=1e-3, abs=1e-5)


WRONG: list[tuple[dict[str, Any], str]] = [
    (dict(num_jitters=1), "num_jitters is 1; a spread needs at least 2"),
    (dict(jitter="cauchy"), "jitter 'cauchy'; use 'normal' or 'uniform'"),
    (dict(spread_norm="area"), "spread_norm 'area'; use 'code' or 'paper'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[row[1] for row in WRONG])
def test_wrong_values_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BoxJitter(**(dict(num_jitters=10, jitter_fraction=0.06) | change))
