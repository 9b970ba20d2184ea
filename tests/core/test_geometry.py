"""Geometry against corner-by-corner loops, and against mmdet's bbox_project under autocast."""

import math

import pytest
import torch
from reference import boxes as reference
from torch import Tensor

from ssod.core.geometry import (
    box_area,
    box_sides,
    clip_boxes,
    jitter_boxes,
    pairwise_iou,
    project_boxes,
    visible_share,
)


def random_boxes(*shape: int, limit: float = 200.0, seed: int = 0) -> Tensor:
    """Boxes (*shape, 4) with sides from 1 px to half of `limit`."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * limit * 0.7
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2, generator=generator) * limit / 2], dim=-1)


def matrix(
    angle: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0, 0), tilt: float = 0.0
) -> Tensor:
    """A homography (3, 3): turn, scale, shift, and perspective along x."""
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[c, -s, shift[0]], [s, c, shift[1]], [tilt, 0, 1]])


HOMOGRAPHIES = {
    "identity": matrix(),
    "shift that leaves the view": matrix(shift=(-60, 70)),
    "flip": torch.tensor([[-1.0, 0, 200], [0, 1, 0], [0, 0, 1]]),
    "turn": matrix(angle=0.4, shift=(30, -20)),
    "resize": matrix(scale=1.7),
    "perspective": matrix(angle=-0.2, tilt=1e-3, shift=(10, 10)),
    "scaled by two": matrix(angle=0.3, tilt=5e-4) * 2,  # a homography has no scale of its own
}


@pytest.mark.parametrize("name", HOMOGRAPHIES)
def test_project_boxes_corner_by_corner(name: str) -> None:
    boxes, size = random_boxes(1, 40, seed=1), (150.0, 220.0)
    actual = project_boxes(boxes, HOMOGRAPHIES[name][None], torch.tensor([size]))
    expected = [reference.project(box, HOMOGRAPHIES[name].tolist(), size) for box in boxes[0].tolist()]
    torch.testing.assert_close(actual[0], torch.tensor(expected), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", HOMOGRAPHIES)
def test_without_a_size_boxes_stick_out(name: str) -> None:
    boxes, homography = random_boxes(1, 40, seed=1), HOMOGRAPHIES[name]
    hull = project_boxes(boxes, homography[None], None)
    far = (1e9, 1e9)  # high enough never to cut; the low border is moved away by a shift
    shifted = (matrix(shift=(1e4, 1e4)).double() @ homography.double()).tolist()
    expected = torch.tensor([reference.project(box, shifted, far) for box in boxes[0].tolist()])
    torch.testing.assert_close(hull[0], expected - 1e4, rtol=1e-5, atol=2e-3)
    size = torch.tensor([[150.0, 220.0]])
    assert clip_boxes(hull, size).equal(project_boxes(boxes, homography[None], size))


def test_each_image_has_its_own_homography_and_size() -> None:
    boxes = random_boxes(len(HOMOGRAPHIES), 10, seed=2)
    sizes = torch.tensor([[100.0 + 10 * i, 90.0 + 20 * i] for i in range(len(HOMOGRAPHIES))])
    together = project_boxes(boxes, torch.stack(list(HOMOGRAPHIES.values())), sizes)
    for index, homography in enumerate(HOMOGRAPHIES.values()):
        alone = project_boxes(boxes[index : index + 1], homography[None], sizes[index : index + 1])
        assert together[index].equal(alone[0])


def test_there_and_back_is_the_identity_for_upright_maps() -> None:
    boxes, far = random_boxes(1, 30, seed=3), torch.tensor([[1e6, 1e6]])
    there = matrix(shift=(500, 300)) @ HOMOGRAPHIES["flip"] @ matrix(scale=1.3)
    once = project_boxes(boxes, there[None], far)
    assert (once - boxes).abs().max() > 100
    torch.testing.assert_close(project_boxes(once, there.inverse()[None], far), boxes, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_autocast_does_not_move_a_corner_but_moves_mmdets(registered: None, kind: torch.dtype) -> None:
    """HAZARDS row 6: the base multiplies matrices in half precision; at 1333 px that is pixels."""
    from mmdet.structures.bbox import bbox_project

    boxes = random_boxes(1, 2000, limit=1333.0, seed=4)
    homography, size = matrix(angle=0.1, scale=1.21, shift=(-37.3, 21.9)), (1200, 1600)
    single = project_boxes(boxes, homography[None], torch.tensor([size]))
    with torch.autocast("cpu", dtype=kind):
        ours = project_boxes(boxes, homography[None], torch.tensor([size]))
        theirs = bbox_project(boxes[0], homography, size)
    assert ours.dtype == torch.float32 and ours.equal(single)
    exact = torch.tensor([reference.project(box, homography.tolist(), size) for box in boxes[0].tolist()])
    assert (single[0] - exact).abs().max() < 1e-3
    assert (theirs.float() - exact).abs().max() > (4.0 if kind == torch.bfloat16 else 1.0)


def test_without_autocast_mmdet_agrees(registered: None) -> None:
    from mmdet.structures.bbox import bbox_project

    boxes = random_boxes(1, 50, seed=5)
    for homography in HOMOGRAPHIES.values():
        ours = project_boxes(boxes, homography[None], torch.tensor([[170.0, 190.0]]))
        torch.testing.assert_close(
            ours[0], bbox_project(boxes[0], homography, (170, 190)), rtol=1e-5, atol=1e-3
        )


def test_half_boxes_are_projected_in_single_precision() -> None:
    boxes = torch.tensor([[[100.0, 200, 900, 1000]]]).half()
    moved = project_boxes(boxes, matrix(shift=(0.3, 0.3))[None], torch.tensor([[2000.0, 2000.0]]))
    torch.testing.assert_close(moved, boxes.float() + 0.3)


def test_one_homography_for_every_image_or_an_error_with_the_shape() -> None:
    with pytest.raises(ValueError, match=r"homography must be \(2, 3, 3\), got \(1, 3, 3\)"):
        project_boxes(random_boxes(2, 3), matrix()[None], torch.ones(2, 2))


CLIPS: list[tuple[str, list[float], list[float]]] = [
    ("inside stays", [1, 2, 3, 4], [1, 2, 3, 4]),
    ("left and top at 0", [-5, -6, 3, 4], [0, 0, 3, 4]),
    ("right at the width, bottom at the height", [1, 2, 99, 99], [1, 2, 20, 10]),
    ("outside becomes empty", [30, 30, 40, 40], [20, 10, 20, 10]),
]


@pytest.mark.parametrize(("box", "expected"), [row[1:] for row in CLIPS], ids=[row[0] for row in CLIPS])
def test_clip_boxes(box: list[float], expected: list[float]) -> None:
    size = torch.tensor([[10.0, 20.0]])  # height, width
    assert clip_boxes(torch.tensor([[box]]), size)[0, 0].tolist() == expected
    assert clip_boxes(torch.tensor([[[box, box]]]), size)[0, 0].tolist() == [expected] * 2  # (B, J, K, 4)


def test_area_and_visible_share() -> None:
    before = torch.tensor([[0.0, 0, 10, 10], [-5, 0, 5, 10], [20, 0, 30, 10], [5, 5, 5, 9], [9, 9, 1, 1]])
    after = clip_boxes(before[None], torch.tensor([[10.0, 10.0]]))[0]
    assert box_area(before).tolist() == [100, 100, 100, 0, 0]
    assert visible_share(before, after).tolist() == [1.0, 0.5, 0.0, 0.0, 0.0]


# ---------------------------------------------------------------- jitter


def test_normal_jitter_is_mmdets(registered: None) -> None:
    """The same random numbers, the same boxes: sides below 1 px count as 1 in both."""
    from mmdet.models.detectors.soft_teacher import SoftTeacher
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    boxes = random_boxes(1, 12, seed=6)
    boxes[0, 0] = torch.tensor([5.0, 5.0, 5.2, 5.1])
    sample = DetDataSample(gt_instances=InstanceData(bboxes=boxes[0]))
    torch.manual_seed(0)
    [expected] = SoftTeacher.aug_box([sample], 10, 0.06)
    torch.manual_seed(0)
    torch.testing.assert_close(jitter_boxes(boxes, 10, 0.06)[0], expected)


@pytest.mark.parametrize("uniform", [False, True])
def test_jitter_is_a_share_of_the_side(uniform: bool) -> None:
    torch.manual_seed(1)
    boxes = torch.tensor([[[0.0, 0, 100, 10], [7, 7, 7, 7]], [[50, 60, 51, 260], [0, 0, 30, 30]]])
    copies = jitter_boxes(boxes, 4000, 0.06, uniform)
    assert copies.shape == (2, 4000, 2, 4)
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1).repeat(1, 1, 2)
    share = (copies - boxes[:, None]) / (sides * 0.06)[:, None]
    deviation = 1 / math.sqrt(3) if uniform else 1.0
    torch.testing.assert_close(share.mean(dim=1), torch.zeros(2, 2, 4), atol=0.06, rtol=0)
    torch.testing.assert_close(share.std(dim=1), torch.full((2, 2, 4), deviation), atol=0.04, rtol=0)
    largest = share.abs().max()
    assert 0.99 < largest <= 1 + 1e-3 if uniform else largest > 3
    # every coordinate is moved on its own
    correlation = torch.corrcoef(share[0, :, 0].T) - torch.eye(4)
    assert correlation.abs().max() < 0.06


# ---------------------------------------------------------------- overlap


def test_pairwise_iou_box_by_box(registered: None) -> None:
    from mmdet.structures.bbox import bbox_overlaps

    first, second = random_boxes(3, 7, seed=7), random_boxes(3, 9, seed=8)
    first[0, 0], second[0, 0] = first.new_tensor([3.0, 3, 3, 9]), first.new_tensor([3.0, 3, 3, 9])  # no area
    actual = pairwise_iou(first, second)
    for image in range(3):
        expected = [[reference.iou(a, b) for b in second[image].tolist()] for a in first[image].tolist()]
        torch.testing.assert_close(actual[image], torch.tensor(expected), rtol=1e-5, atol=1e-6)
        assert actual[image].equal(
            bbox_overlaps(first[image], second[image])
        )  # to the bit: ties decide matches
    assert actual.equal(torch.stack([pairwise_iou(a, b) for a, b in zip(first, second, strict=True)]))


def test_pairwise_iou_of_half_boxes_is_single_precision() -> None:
    boxes = torch.tensor([[0.0, 0, 600, 600]])  # 360 000 px² is beyond float16
    assert pairwise_iou(boxes.half(), boxes.half()).tolist() == [[1.0]]


def test_gradients_flow_through_projection_and_overlap() -> None:
    boxes = random_boxes(1, 3, seed=9).double().requires_grad_()
    homography = matrix(angle=0.2, scale=0.5, shift=(60, 10))
    moved = project_boxes(boxes, homography[None], torch.tensor([[1e3, 1e3]]))
    (gradient,) = torch.autograd.grad(moved.sum(), boxes)
    # each side of the hull comes from another corner: x1' from the lower left, y1' from the upper left, ...
    c, s = homography[0, 0].double(), homography[1, 0].double()
    expected = torch.stack([c + s, c - s, c + s, c - s]).expand_as(boxes)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_box_sides_count_at_least_a_pixel() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 25.0], [5.0, 5.0, 5.2, 9.0], [8.0, 8.0, 2.0, 2.0]])
    assert box_sides(boxes).tolist() == [[20, 5, 20, 5], [1, 4, 1, 4], [1, 1, 1, 1]]
