"""Features of boxes, in each of the two ways, against mmdet's extractor: values and gradients, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from ssod.models import suppression
from ssod.models.regions import distinct, region_features, rois_of
from ssod.study.benchmark.as_gpu import on_torchvisions_kernels
from ssod.study.benchmark.counting import OperatorCounter

ALIGN: dict[str, dict[str, Any]] = {
    "adaptive": dict(sampling_ratio=0),
    "two samples": dict(sampling_ratio=2),
    "not aligned": dict(sampling_ratio=0, aligned=False),
}


def extractor(**align: Any) -> Any:
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    layer = dict(type="RoIAlign", output_size=7) | align
    return SingleRoIExtractor(roi_layer=layer, out_channels=3, featmap_strides=[4, 8, 16], finest_scale=16)


def levels() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(2, 3, 96 // down, 128 // down, generator=generator) for down in (4, 8, 16)]
    return [each.contiguous(memory_format=torch.channels_last).requires_grad_() for each in made]


def some_rois(largest: float = 90.0) -> Tensor:
    """Of all sizes, some beyond the border, some of no size, some inside out, as jittered copies can be."""
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(2, 40, 2, generator=generator) * 100 - 8
    sides = torch.rand(2, 40, 2, generator=generator) ** 2 * largest
    boxes = torch.cat([low, low + sides], dim=-1)
    boxes[:, ::9] = 0
    boxes[:, 1::9] = boxes[:, 1::9][..., [2, 1, 0, 3]]
    boxes[0, 2] = torch.nan
    return rois_of(boxes, 0)


@contextmanager
def on_a_device() -> Iterator[None]:
    with on_torchvisions_kernels(), mock.patch.object(suppression, "host_waits", lambda device: True):
        yield


def both(way: Any, rois: Tensor, **align: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Features and the gradients of the levels: ours, and mmdet's on the same kernel."""
    made, results = extractor(**align), []
    for function in (region_features, lambda extract, *values: extract(*values)):
        maps = levels()
        with way():
            found = function(made, maps, rois)
            weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
            gradients = torch.autograd.grad((found * weights).sum(), maps)
        results.append([found, *gradients])
    return results[0], results[1]


@pytest.mark.parametrize("align", ALIGN.values(), ids=ALIGN)
@pytest.mark.parametrize("way", [on_a_device, mock.MagicMock], ids=["a device", "a CPU"])
def test_they_are_mmdets(registered: None, way: Any, align: dict[str, Any]) -> None:
    for rois in (some_rois(), some_rois(largest=12.0)):  # the second leaves levels without any
        for ours, theirs in zip(*both(way, rois, **align), strict=True):
            assert ours.equal(theirs)


def test_a_device_is_not_waited_for(registered: None) -> None:
    made, maps, rois = extractor(), levels(), some_rois()
    with on_a_device(), OperatorCounter() as counter:
        region_features(made, maps, rois)
    with on_a_device(), OperatorCounter() as theirs:
        made(maps, rois)
    assert not counter.waits and theirs.waits.total() == 3
    assert counter.calls.total() < theirs.calls.total()


def test_others_are_asked(registered: None) -> None:
    """The largest sample of each bin, and an extractor of one level."""
    most = extractor(pool_mode="max")
    assert region_features(most, levels(), some_rois()).equal(most(levels(), some_rois()))
    made, maps = extractor(), levels()[:1]
    assert region_features(made, maps, some_rois()).equal(made(maps, some_rois()))


def test_boxes_that_come_twice() -> None:
    rois = some_rois()
    rois = rois[rois.isfinite().all(dim=1)]
    twice = torch.cat([rois, rois.flip(0)])
    found, place = distinct(twice)
    assert place is not None and found[place].equal(twice)
    assert len(found) == len(rois) - 2 * 4  # of the five empty ones of each image one is left
    alone = found[:5]
    assert distinct(alone)[0] is alone and distinct(alone)[1] is None
    with on_a_device():
        assert distinct(twice)[0] is twice
