"""NMS in fixed shapes against NMS of what is wanted alone, and detections against decoding all classes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import detectors
from torch import Tensor
from torchvision.ops import batched_nms

from ssod.core.geometry import clip_boxes
from ssod.core.labels import BoxLabels
from ssod.models import frcnn, suppression
from ssod.models.suppression import candidates, most_above, suppress


def assert_equal(first: BoxLabels, second: BoxLabels) -> None:
    """Every value of two BoxLabels is the same, bit for bit."""
    for name in ("boxes", "classes", "scores", "valid"):
        assert getattr(first, name).equal(getattr(second, name)), name


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes (B, M, 4) on a coarse grid with scores of few values, groups and which are wanted.

    So there are ties, equal and empty boxes; what is not wanted may hold anything.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 40)))
    low = torch.randint(0, 6, (*shape, 2), generator=generator)
    high = low + torch.randint(0, 6, (*shape, 2), generator=generator)
    boxes = torch.cat([low, high], dim=-1).float() * draw(st.sampled_from([1.0, 0.1, 200.0]))
    scores = torch.randint(0, draw(st.sampled_from([2, 9, 1000])), shape, generator=generator) / 7
    groups = torch.randint(0, draw(st.sampled_from([1, 3])), shape, generator=generator)
    wanted = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    if draw(st.booleans()):
        scores, boxes = (
            scores.masked_fill(~wanted, torch.nan),
            boxes.masked_fill(~wanted[..., None], torch.nan),
        )
    elif draw(st.booleans()):
        boxes = boxes.masked_fill(~wanted[..., None], torch.inf)
    return boxes, scores, groups, wanted


@settings(max_examples=150, deadline=None)
@given(crowds(), st.sampled_from([0.0, 0.3, 0.5, 0.99, 1.0]), st.sampled_from([1, 3, 100, -1]))
def test_fixed_shapes_keep_the_same_boxes(
    crowd: tuple[Tensor, Tensor, Tensor, Tensor], threshold: float, most: int
) -> None:
    boxes, scores, groups, wanted = crowd
    values = (boxes, scores, groups + 2, groups, wanted, threshold, most)
    fixed = suppress(*values, fixed=True)
    assert_equal(fixed, suppress(*values, fixed=False))
    for image, want in enumerate(wanted):  # and torchvision agrees on which
        keep = batched_nms(boxes[image, want], scores[image, want], groups[image, want], threshold)
        keep = keep if most < 0 else keep[:most]
        assert fixed.boxes[image, fixed.valid[image]].equal(boxes[image, want][keep])


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.02, 0.05, 0.2, 0.25, 1 / 3, 0.5, 0.9, 1.0]),
    st.sampled_from([1, 3, 7, 60]),
    st.sampled_from([0.1, 3.0, 50.0]),
)
def test_both_ways_find_what_scores_above_the_floor(seed: int, floor: float, num: int, sharp: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randn(2, 5, num + 1, generator=generator) * sharp).softmax(dim=-1)[..., :-1]
    scores[0, 0] = torch.nan
    valid = torch.rand(2, 5, generator=generator) < 0.8
    expected = ((scores > floor) & valid[..., None]).flatten(1)
    for fixed in (False, True):
        place, counted = candidates(scores, valid, floor, fixed)
        assert place.shape == counted.shape and place.shape[1] >= 1
        for image in range(2):
            assert place[image, counted[image]].equal(expected[image].nonzero().squeeze(1))
    assert place.shape[1] == 5 * most_above(floor, num)


def test_equal_scores_at_the_bound_are_all_found() -> None:
    """Two classes of one half each: neither exceeds it, but rounding may have it otherwise."""
    above = torch.full((1, 1, 2), 0.5).nextafter(torch.ones(()))
    _, counted = candidates(above, torch.ones(1, 1, dtype=torch.bool), 0.5, fixed=True)
    assert counted.sum() == 2
    assert [most_above(floor, 80) for floor in (0.0, 0.01, 0.05, 0.3, 0.5, 0.7, 1.0)] == [
        80,
        80,
        20,
        3,
        2,
        1,
        1,
    ]


def test_the_device_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU gives as many places as count; where the host would wait, it is the bound; too many do wait."""
    scores = torch.tensor([[[0.6, 0.2, 0.1], [0.1, 0.1, 0.1]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert candidates(scores, valid, 0.3)[0].shape == (1, 1)
    monkeypatch.setattr(suppression, "host_waits", lambda device: True)
    assert candidates(scores, valid, 0.3)[0].shape == (1, 6)
    monkeypatch.setattr(suppression, "MOST_FIXED", 5)
    assert candidates(scores, valid, 0.3)[0].shape == (1, 1)
    assert candidates(scores, valid, 0.5)[0].shape == (1, 4)


# ---------------------------------------------------------------- detections

AGNOSTIC = {"reg_class_agnostic": True}


def decoding_all(detector: Any, view: Any, floor: float) -> BoxLabels:
    """What `frcnn.detect` finds, the obvious way: all classes of all proposals decoded."""
    head = detector.roi_head.bbox_head
    pyramid = frcnn.features(detector, view.images)
    found = frcnn.proposals(detector, frcnn.rpn_forward(detector, pyramid), view, detector.test_cfg.rpn)
    [(logits, codes)] = frcnn.roi_forward(detector, pyramid, [(0, found.boxes)])
    scores = logits.softmax(dim=-1)[..., :-1]
    wanted = (scores > floor) & found.valid[..., None]
    batch, slots, num_classes = scores.shape
    codes = codes.view(batch, slots, -1, 4).expand(-1, -1, num_classes, -1)
    boxes = found.boxes[:, :, None].expand_as(codes)
    decoded = head.bbox_coder.decode(boxes.reshape(-1, 4), codes.reshape(-1, 4))
    classes = torch.arange(num_classes).expand_as(scores).flatten(1)
    config = detector.test_cfg.rcnn
    return suppress(
        clip_boxes(decoded.view(batch, -1, 4), view.size),
        scores.flatten(1),
        classes,
        classes,
        wanted.flatten(1),
        config.nms.iou_threshold,
        config.max_per_img,
        fixed=False,
    )


@pytest.mark.parametrize("change", [{}, AGNOSTIC], ids=["a box per class", "one box for all classes"])
@torch.no_grad()
def test_detections_are_those_of_decoding_all(
    registered: None, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = detectors.config()
    config.roi_head.bbox_head.update(change)
    detector, view = detectors.build(config).eval(), detectors.view()
    for floor in (0.0, 0.05, 0.5, 1.0):
        expected = decoding_all(detector, view, floor)
        assert expected.valid.any() == (floor < 1)
        assert_equal(frcnn.detect(detector, view, floor)[0], expected)
        with monkeypatch.context() as patch:
            patch.setattr(suppression, "host_waits", lambda device: True)
            assert_equal(frcnn.detect(detector, view, floor)[0], expected)
