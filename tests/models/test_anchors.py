"""Anchors of all levels at once: those of mmdet's generator, to the bit, and the corners of their cells."""

from typing import Any

import pytest
import torch

from ssod.models import anchors

SIZES = [(7, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
GENERATORS: dict[str, dict[str, Any]] = {
    "Faster R-CNN's": dict(scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]),
    "several scales, strides of two sides": dict(
        scales=[4, 6],
        ratios=[1.0],
        strides=[(4, 8), (8, 16), (16, 32), (32, 64), (64, 128)],
        center_offset=0.5,
    ),
}


@pytest.mark.parametrize("options", GENERATORS.values(), ids=GENERATORS)
def test_they_are_mmdets(registered: None, options: dict[str, Any]) -> None:
    from mmdet.models.task_modules.prior_generators import AnchorGenerator

    generator = AnchorGenerator(**options)
    boxes, cells = anchors.grid_anchors(generator, SIZES, torch.device("cpu"))
    assert boxes.equal(torch.cat(generator.grid_priors(SIZES, device="cpu")))
    one_by_one = anchors._level_by_level(generator, SIZES, torch.device("cpu"))
    assert boxes.equal(one_by_one[0]) and cells.equal(one_by_one[1])
    first, second = generator.strides[0]
    count = generator.num_base_priors[0]
    assert cells[count * 13].tolist() == [second, first]  # the second row's second cell


def test_levels_that_differ(registered: None) -> None:
    """SSD has more anchors on some levels than on others: level by level."""
    from mmdet.models.task_modules.prior_generators import SSDAnchorGenerator

    generator = SSDAnchorGenerator(
        strides=[8, 16], ratios=[[2], [2, 3]], min_sizes=[10, 30], max_sizes=[30, 60]
    )
    boxes, cells = anchors.grid_anchors(generator, SIZES[:2], torch.device("cpu"))
    assert boxes.equal(torch.cat(generator.grid_priors(SIZES[:2], device="cpu")))
    assert cells.shape == (len(boxes), 2)
