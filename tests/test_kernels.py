"""torchvision's kernels behind mmcv's operations: values, gradients, types, imports, detectors."""

import importlib
import math
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import kernels as reference
from reference import small_detectors
from torch import Tensor
from torch.autograd import gradcheck

from ssod import kernels
from ssod.kernels.precision import full_precision


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    kernels.install()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def ops() -> Any:
    return importlib.import_module("mmcv.ops")


def random_boxes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) crowded enough to overlap, and scores (N,) without ties."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 20
    side = torch.rand(count, 2, generator=generator) * 15 + 1
    scores = torch.randperm(count, generator=generator) / count + 0.01
    return torch.cat([corner, corner + side], dim=1), scores


def double(*shape: int, seed: int) -> Tensor:
    """A float64 leaf of normal values that wants a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def assert_same_gradients(actual: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    """Both outputs agree, and so do the gradients of one random weighting of them."""
    torch.testing.assert_close(actual, expected)
    weighting = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9)).double()
    ours = torch.autograd.grad(actual, leaves, weighting)
    theirs = torch.autograd.grad(expected, leaves, weighting)
    for own, oracle in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, oracle)


# ------------------------------------------------------------------------------------ suppression


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
def test_nms_keeps_what_the_oracle_keeps(ops: Any, offset: int, threshold: float) -> None:
    boxes, scores = random_boxes(60, seed=1)
    rows, indices = ops.nms(boxes, scores, threshold, offset=offset)
    assert indices.tolist() == reference.nms(boxes, scores, threshold, offset)
    torch.testing.assert_close(rows, torch.cat([boxes, scores[:, None]], 1)[indices])


def test_nms_offset_changes_what_is_kept(ops: Any) -> None:
    # one pixel apart: disjoint as areas, overlapping as sets of pixels
    boxes, scores = torch.tensor([[0.0, 0, 1, 1], [1, 0, 2, 1]]), torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]
    assert ops.nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]


def test_nms_threshold_equal_to_the_overlap_keeps_the_box(ops: Any) -> None:
    boxes, scores = torch.tensor([[0.0, 0, 5, 1], [0, 0, 3, 1]]), torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, 0.6)[1].tolist() == [0, 1]  # float32(0.6) > float64 0.6


def test_nms_of_nothing_and_in_low_precision(ops: Any) -> None:
    assert ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)[1].shape == (0,)
    boxes, scores = random_boxes(20, seed=2)
    for kind in (torch.float16, torch.bfloat16):
        low = boxes.to(kind)
        kept = ops.nms(low, scores, 0.5)[1].tolist()
        assert kept == reference.nms(low.float(), scores, 0.5, 0)


def test_batched_nms_keeps_classes_apart(ops: Any) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    scores, classes = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 1])
    settings = {"type": "nms", "iou_threshold": 0.5}
    assert ops.batched_nms(boxes, scores, classes, settings)[1].tolist() == [0, 1]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_follows_the_oracle(ops: Any, method: str, offset: int) -> None:
    boxes, scores = random_boxes(40, seed=3)
    options: dict[str, Any] = {"min_score": 0.05, "method": method, "offset": offset}
    rows, indices = ops.soft_nms(boxes, scores, 0.3, 0.5, **options)
    kept, decayed = reference.soft_nms(boxes, scores, 0.3, 0.5, **options)
    assert 0 < len(kept) < 40 and indices.tolist() == kept
    torch.testing.assert_close(rows[:, 4], torch.tensor(decayed))
    torch.testing.assert_close(rows[:, :4], boxes[indices])


def test_soft_nms_of_nothing_and_of_equal_empty_boxes(ops: Any) -> None:
    assert ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))[1].shape == (0,)
    rows, _ = ops.soft_nms(torch.zeros(2, 4), torch.tensor([0.5, 0.9]), method="gaussian")
    torch.testing.assert_close(rows[:, 4], torch.tensor([0.9, 0.5]))  # 0 / 0 is no overlap


def test_nms_match_groups_as_the_oracle(ops: Any) -> None:
    boxes, scores = random_boxes(40, seed=4)
    expected = reference.nms_match(boxes, scores, 0.4)
    rows = torch.cat([boxes, scores[:, None]], dim=1)
    assert [group.tolist() for group in ops.nms_match(rows, 0.4)] == expected
    assert [group.tolist() for group in ops.nms_match(rows.numpy(), 0.4)] == expected
    assert ops.nms_match(np.zeros((0, 5), np.float32), 0.4) == []


# ---------------------------------------------------------------------------------------- pooling

ROIS = torch.tensor(
    [[0, 1.3, 0.7, 9.6, 6.1], [1, -4.0, 2.0, 3.0, 15.0], [1, 5.2, 5.1, 5.9, 5.4]],
    dtype=torch.float64,
)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_and_its_gradient(ops: Any, mode: str, ratio: int, aligned: bool) -> None:
    features = double(2, 2, 6, 7, seed=5)
    arguments = (ROIS, (2, 3), 0.5, ratio, mode, aligned)
    actual, expected = (
        ops.roi_align(features, *arguments),
        reference.roi_align(features, *arguments),
    )
    assert_same_gradients(actual, expected, [features])


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_roi_align_on_a_cpu_is_torchvisions(
    ops: Any, ratio: int, aligned: bool, layout: torch.memory_format
) -> None:
    """400 rois of all sizes, also outside of their image, empty and turned around."""
    from torchvision.ops import roi_align

    generator = torch.Generator().manual_seed(3)
    features = torch.randn(3, 5, 25, 40, generator=generator).to(memory_format=layout).requires_grad_()
    corners = torch.rand(400, 2, 2, generator=generator) * torch.tensor([200.0, 130.0]) - 15
    ends = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    ends[:5] = ends[:5, [2, 3, 0, 1]]
    rois = torch.cat([torch.randint(3, (400, 1), generator=generator).float(), ends], dim=1)
    actual = ops.roi_align(features, rois, (7, 5), 0.25, ratio, "avg", aligned)
    expected = roi_align(features, rois, (7, 5), 0.25, ratio or -1, aligned)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    weighting = torch.randn(expected.shape, generator=generator)
    ours, theirs = (torch.autograd.grad(each, features, weighting)[0] for each in (actual, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_roi_align_of_a_roi_that_is_no_number_is_zero(ops: Any) -> None:
    rois = torch.tensor([[0.0, math.nan, 1, 3, 3], [0, 1, 1, 3, 3]])
    for ratio in (0, 2):
        found = ops.roi_align(torch.ones(1, 2, 5, 5), rois, 2, 1.0, ratio, "avg", True)
        assert found[0].eq(0).all() and found[1].eq(1).all()


def test_roi_align_gradient_by_finite_differences(ops: Any) -> None:
    features = double(2, 1, 4, 4, seed=6)
    for mode in ("avg", "max"):
        assert gradcheck(lambda x, mode=mode: ops.roi_align(x, ROIS, (2, 2), 0.5, 2, mode, True), (features,))


def test_roi_align_of_no_and_of_empty_rois(ops: Any) -> None:
    features = torch.rand(1, 3, 5, 5)
    assert ops.roi_align(features, torch.zeros(0, 5), 2, 1.0, 0, "avg", True).shape == (0, 3, 2, 2)
    point = torch.tensor([[0.0, 2, 2, 2, 2]])
    assert ops.roi_align(features, point, 2, 1.0, 0, "avg", True).eq(0).all()
    lowest = ops.roi_align(features, point, 2, 1.0, 0, "max", True)  # mmcv gives -10000 or less
    torch.testing.assert_close(
        lowest, features[:, :, 1:3, 1:3].mean((2, 3))[..., None, None] * torch.ones(2, 2)
    )


@pytest.mark.parametrize("scale", [1.0, 0.5, 1 / 3])
def test_roi_pool_and_its_gradient(ops: Any, scale: float) -> None:
    features = double(2, 2, 6, 7, seed=7)
    outside = ROIS.new_tensor([[0, 30, 30, 40, 40], [0, 8, 8, 2, 2]])  # beyond the image, inverted
    rois = torch.cat([ROIS, outside])
    actual = ops.roi_pool(features, rois, (2, 3), scale)
    expected = reference.roi_pool(features, rois, (2, 3), scale)
    assert_same_gradients(actual, expected, [features])
    assert gradcheck(lambda x: ops.roi_pool(x, rois, (2, 3), scale), (features,))


def test_roi_pool_at_full_scale_is_torchvisions(ops: Any) -> None:
    torchvision = importlib.import_module("torchvision")
    features, rois = torch.rand(1, 3, 9, 9), torch.tensor([[0.0, 1, 2, 6, 7], [0, 0, 0, 8, 3]])
    actual = ops.roi_pool(features, rois, (3, 3), 1.0)
    torch.testing.assert_close(actual, torchvision.ops.roi_pool(features, rois, (3, 3), 1.0))


# ------------------------------------------------------------------------------------- focal loss


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.7)])
def test_focal_loss_and_its_gradient(ops: Any, gamma: float, alpha: float, weighted: bool) -> None:
    logits, target = double(6, 3, seed=8), torch.tensor([0, 2, 1, 3, 3, 0])  # 3 is background
    weight = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64) if weighted else None
    actual = ops.sigmoid_focal_loss(logits, target, gamma, alpha, weight, "none")
    expected = reference.sigmoid_focal_loss(logits, target, weight, gamma, alpha)
    assert_same_gradients(actual, expected, [logits])
    mean = ops.sigmoid_focal_loss(logits, target, gamma, alpha, weight, "mean")
    torch.testing.assert_close(mean, expected.sum() / 6)
    assert gradcheck(lambda x: ops.sigmoid_focal_loss(x, target, gamma, alpha, weight, "sum"), (logits,))


def test_focal_loss_of_confident_mistakes_stays_exact(ops: Any) -> None:
    logits = torch.tensor([[40.0, -40.0]], requires_grad=True)
    target = torch.tensor([1])
    loss = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "none")
    torch.testing.assert_close(loss, torch.tensor([[30.0, 10.0]]))  # 40 times 1 - alpha and alpha
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(gradient, torch.tensor([[0.75, -0.25]]))


def test_focal_loss_is_torchvisions(ops: Any) -> None:
    torchvision = importlib.import_module("torchvision")
    logits, target = torch.randn(20, 4), torch.randint(0, 5, (20,))
    one_hot = torch.nn.functional.one_hot(target, 5)[:, :4].float()
    expected = torchvision.ops.sigmoid_focal_loss(logits, one_hot, reduction="sum")
    torch.testing.assert_close(ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "sum"), expected)


# ------------------------------------------------------------------------ convolutions, attention

# stride, padding, dilation, groups, deformable groups
GEOMETRIES = [(1, 1, 1, 1, 1), (2, 1, 1, 2, 2), (1, 2, 2, 1, 2)]


def convolution_tensors(geometry: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Small features, offsets, masks, weights and biases that fit a geometry."""
    stride, padding, dilation, groups, parts = geometry
    side = (4 + 2 * padding - 2 * dilation - 1) // stride + 1
    return (
        double(2, 4, 4, 4, seed=10),
        double(2, 2 * parts * 9, side, side, seed=11),
        double(2, parts * 9, side, side, seed=12),
        double(2, 4 // groups, 3, 3, seed=13),
        double(2, seed=14),
    )


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_deform_conv_and_its_gradients(ops: Any, geometry: tuple[int, ...]) -> None:
    features, offset, _, weight, _ = convolution_tensors(geometry)
    actual = ops.deform_conv2d(features, offset, weight, *geometry)
    expected = reference.deform_conv2d(features, offset, None, weight, None, *geometry)
    assert_same_gradients(actual, expected, [features, offset, weight])


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_modulated_deform_conv_and_its_gradients(ops: Any, geometry: tuple[int, ...], biased: bool) -> None:
    features, offset, mask, weight, bias = convolution_tensors(geometry)
    bias_or_none = bias if biased else None
    actual = ops.modulated_deform_conv2d(features, offset, mask, weight, bias_or_none, *geometry)
    expected = reference.deform_conv2d(features, offset, mask, weight, bias_or_none, *geometry)
    leaves = [features, offset, mask, weight, *([bias] if biased else [])]
    assert_same_gradients(actual, expected, leaves)


def test_deform_conv_gradients_by_finite_differences(ops: Any) -> None:
    geometry = (2, 0, 1, 1, 1)
    features, offset, mask, weight, bias = convolution_tensors(geometry)
    assert gradcheck(lambda *x: ops.deform_conv2d(*x, *geometry), (features, offset, weight))
    leaves = (features, offset, mask, weight, bias)
    assert gradcheck(lambda *x: ops.modulated_deform_conv2d(*x, *geometry), leaves)


def attention_tensors() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Value, level shapes, level starts, places (some outside) and weights of two levels."""
    shapes, starts = torch.tensor([[3, 4], [2, 2]]), torch.tensor([0, 12])
    places = torch.rand(2, 3, 2, 2, 2, 2, generator=torch.Generator().manual_seed(15)) * 1.4 - 0.2
    return (
        double(2, 16, 2, 3, seed=16),
        shapes,
        starts,
        places.double().requires_grad_(),
        double(2, 3, 2, 2, 2, seed=17),
    )


def test_deform_attention_and_its_gradients() -> None:
    module = importlib.import_module("mmcv.ops.multi_scale_deform_attn")
    value, shapes, starts, places, weights = attention_tensors()
    actual = module.MultiScaleDeformableAttnFunction.apply(value, shapes, starts, places, weights, 64)
    expected = reference.deform_attention(value, [(3, 4), (2, 2)], places, weights)
    assert_same_gradients(actual, expected, [value, places, weights])


# ------------------------------------------------------------------------------ types and autocast


def low_precision_calls(ops: Any, kind: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Pairs of results of float16 or bfloat16 arguments and of the same values in float32."""
    attention = importlib.import_module("mmcv.ops.multi_scale_deform_attn")
    features, rois = double(2, 2, 6, 7, seed=18).to(kind), ROIS.to(kind)
    images, offset, mask, weight, bias = (x.to(kind) for x in convolution_tensors(GEOMETRIES[0]))
    value, shapes, starts, places, weights = attention_tensors()
    value, places, weights = (x.to(kind) for x in (value, places, weights))
    calls: list[tuple[Any, list[Tensor]]] = [
        (lambda x, r: ops.roi_align(x, r, 2, 0.5, 0, "avg", True), [features, rois]),
        (lambda x, r: ops.roi_align(x, r, 2, 0.5, 0, "max", True), [features, rois]),
        (lambda x, r: ops.roi_pool(x, r, 2, 0.5), [features, rois]),
        (
            lambda x: ops.sigmoid_focal_loss(x, torch.tensor([0, 1]), 2.0, 0.25, None, "none"),
            [features[0, 0, :2]],
        ),
        (lambda x, o, w: ops.deform_conv2d(x, o, w, *GEOMETRIES[0]), [images, offset, weight]),
        (
            lambda *x: ops.modulated_deform_conv2d(*x, *GEOMETRIES[0]),
            [images, offset, mask, weight, bias],
        ),
        (
            lambda v, p, w: attention.MultiScaleDeformableAttnFunction.apply(v, shapes, starts, p, w, 64),
            [value, places, weights],
        ),
    ]
    pairs = []
    for call, arguments in calls:
        leaves = [x.detach().requires_grad_() for x in arguments]
        wide = [x.detach().float().requires_grad_() for x in arguments]
        low, full = call(*leaves), call(*wide)
        pairs.append((low, full))
        gradients = torch.autograd.grad(low.float().sum(), leaves, allow_unused=True)
        expected = torch.autograd.grad(full.sum(), wide, allow_unused=True)
        pairs += [(a, b) for a, b in zip(gradients, expected, strict=True) if a is not None]
    return pairs


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_low_precision_is_float32_rounded(ops: Any, kind: torch.dtype) -> None:
    for low, full in low_precision_calls(ops, kind):
        assert low.dtype == kind
        torch.testing.assert_close(low, full.to(kind))


def test_autocast_does_not_reach_into_kernels(ops: Any) -> None:
    features, offset, mask, weight, bias = (x.float() for x in convolution_tensors(GEOMETRIES[0]))
    plain = ops.modulated_deform_conv2d(features, offset, mask, weight, bias, *GEOMETRIES[0])
    aligned = ops.roi_align(features, ROIS.float(), 2, 0.5, 0, "avg", True)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = ops.modulated_deform_conv2d(features, offset, mask, weight, bias, *GEOMETRIES[0])
        torch.testing.assert_close(mixed, plain, rtol=0, atol=0)
        # features of a convolution under autocast meet rois in float32
        low = ops.roi_align(features.bfloat16(), ROIS.float(), 2, 0.5, 0, "avg", True)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), aligned, rtol=0.02, atol=0.02)


def test_backward_inside_autocast_is_the_same(ops: Any) -> None:
    leaves = [x.detach().float().requires_grad_() for x in convolution_tensors(GEOMETRIES[0])]
    loss = ops.modulated_deform_conv2d(*leaves, *GEOMETRIES[0]).square().sum()
    plain = torch.autograd.grad(loss, leaves, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = torch.autograd.grad(loss, leaves)
    for inside, outside in zip(mixed, plain, strict=True):
        torch.testing.assert_close(inside, outside, rtol=0, atol=0)


def test_every_tensor_kernel_runs_with_autocast_off() -> None:
    # No CPU kernel above minds autocast; CUDA's convolution gradients are matrix products that do.
    square = full_precision(torch.mm)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16
        assert square(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
    extension = importlib.import_module(kernels.EXTENSION)
    if kernels.active() == "torchvision":
        on_tensors = [name for name in vars(extension) if name.endswith(("ward", "nms", "input"))]
        bare = [name for name in on_tensors if not hasattr(vars(extension)[name], "__wrapped__")]
        assert len(on_tensors) >= 12 and bare == ["softnms"]  # which is numpy


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(ops: Any) -> None:
    boxes, scores = random_boxes(60, seed=1)
    kept = ops.nms(boxes.cuda(), scores.cuda(), 0.5, offset=1)[1]
    assert kept.tolist() == reference.nms(boxes, scores, 0.5, 1)
    soft = ops.soft_nms(boxes.cuda(), scores.cuda())[0]
    torch.testing.assert_close(soft.cpu(), ops.soft_nms(boxes, scores)[0])
    features, rois = double(2, 2, 6, 7, seed=5).float().detach(), ROIS.float()
    for mode in ("avg", "max"):
        ours, theirs = features.cuda().requires_grad_(), features.clone().requires_grad_()
        there = ops.roi_align(ours, rois.cuda(), 2, 0.5, 0, mode, True)
        here = ops.roi_align(theirs, rois, 2, 0.5, 0, mode, True)
        torch.testing.assert_close(there.cpu(), here)
        there.sum().backward()
        here.sum().backward()
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad)
    tensors = [x.float() for x in convolution_tensors(GEOMETRIES[1])]
    there = ops.modulated_deform_conv2d(*(x.cuda() for x in tensors), *GEOMETRIES[1])
    here = ops.modulated_deform_conv2d(*tensors, *GEOMETRIES[1])
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------- the install


def run_python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter's run of the code, in the repository's root."""
    command = [sys.executable, *options, "-c", textwrap.dedent(code)]
    root = Path(__file__).parents[1]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


def test_second_install_does_nothing() -> None:
    assert kernels.install() is False
    assert kernels.active() in ("torchvision", "mmcv")


def test_mmcv_and_mmengine_see_an_extension_with_operations() -> None:
    from mmcv.utils.ext_loader import check_ops_exist
    from mmengine.utils.dl_utils.misc import mmcv_full_available

    assert mmcv_full_available() and check_ops_exist()


def test_environment_report_works(ops: Any) -> None:
    assert "torchvision" in ops.get_compiler_version()
    assert isinstance(ops.get_compiling_cuda_version(), str)


def test_unknown_operation_fails_on_use_and_names_itself(ops: Any) -> None:
    rotated = torch.tensor([[5.0, 5, 4, 2, 0.3]])  # imported with mmcv.ops: no complaint so far
    with pytest.raises(NotImplementedError, match=r"'box_iou_rotated' .* compiled mmcv"):
        ops.box_iou_rotated(rotated, rotated)
    extension = importlib.import_module(kernels.EXTENSION)
    with pytest.raises(AttributeError):
        _ = extension.__wrapped__  # tools that probe for special attributes find none


def test_importing_the_module_is_cheap_and_installing_is_silent() -> None:
    run = run_python(
        """
        import sys
        import ssod.kernels
        assert "torch" not in sys.modules and "mmcv" not in sys.modules
        assert ssod.kernels.active() == "none"
        assert "torch" not in sys.modules and "mmcv" not in sys.modules
        assert ssod.kernels.install() and ssod.kernels.active() == "torchvision"
        import mmdet.models, mmdet.datasets, mmdet.evaluation
        """
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_bare_base_does_print() -> None:
    # HAZARDS row 15: without a word from us, the same imports are noisy and end in an error.
    run = run_python(
        """
        import mmdet.datasets, mmdet.evaluation
        import mmcv.ops
        """
    )
    assert "Could not import OneDL" in run.stdout
    assert "faster_coco_eval is not installed" in run.stderr
    assert "No module named 'mmcv._ext'" in run.stderr


def test_other_output_and_errors_pass_through_quiet_imports() -> None:
    run = run_python(
        """
        import warnings
        from ssod.kernels import quiet_imports
        filters = list(warnings.filters)
        with quiet_imports(), quiet_imports():
            from mmengine.logging import print_log
            print_log("Could not import OneDL. Skipping OneDL datasets.")
            print_log("a line of ours")
            warnings.warn("faster_coco_eval is not installed, metrics ...")
            warnings.warn("a warning of ours")
        assert warnings.filters[-len(filters):] == filters
        print_log("Could not import OneDL. Skipping OneDL datasets.")
        with quiet_imports():
            import no_such_package
        """
    )
    assert run.stdout == "a line of ours\nCould not import OneDL. Skipping OneDL datasets.\n"
    assert "a warning of ours" in run.stderr and "faster_coco_eval" not in run.stderr
    assert "No module named 'no_such_package'" in run.stderr


# An extension in mmcv's package that knows every operation, as a compiled one would.
COMPILED = "def __getattr__(name):\n    return lambda *a, **k: (name, 'from the compiled one')\n"


def test_steps_aside_for_a_compiled_mmcv(tmp_path: Path) -> None:
    (tmp_path / "_ext.py").write_text(COMPILED)
    run = run_python(
        f"""
        import mmcv
        mmcv.__path__.append({str(tmp_path)!r})
        import ssod.kernels as kernels
        assert kernels.active() == "mmcv"
        assert kernels.install() is False and kernels.active() == "mmcv"
        from mmcv.ops import nms
        import mmcv._ext
        assert mmcv._ext.nms() == ("nms", "from the compiled one")
        """
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_replaces_a_compiled_mmcv_that_does_not_load_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "_ext.py").write_text("raise ImportError('undefined symbol: _ZN2at')\n")
    run = run_python(
        f"""
        import mmcv
        mmcv.__path__.append({str(tmp_path)!r})
        import ssod.kernels as kernels
        assert kernels.install() is True and kernels.active() == "torchvision"
        """
    )
    assert run.returncode == 0 and run.stdout == ""
    assert "RuntimeWarning" in run.stderr and "undefined symbol: _ZN2at" in run.stderr


def test_what_was_imported_before_the_install_is_repaired() -> None:
    run = run_python(
        """
        import numpy as np, torch
        import mmcv.cnn, mmdet.structures
        from mmdet.structures.mask import BitmapMasks
        import ssod.kernels
        ssod.kernels.install()
        import mmdet.models
        masks = BitmapMasks(np.ones((1, 8, 8), np.uint8), 8, 8)
        crop = masks.crop_and_resize(np.array([[0., 0, 8, 8]], np.float32), (4, 4), np.array([0]))
        assert crop.masks.all()
        """
    )
    assert run.returncode == 0, run.stderr


# --------------------------------------------------------------------------------------- detectors


def image_batch() -> dict[str, Any]:
    """Two 64 x 64 images of two objects with boxes and masks, as mmdet's loader hands them over."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(20)
    samples = []
    for _ in range(2):
        boxes = torch.tensor([[4.0, 6, 30, 40], [20, 22, 60, 58]])
        masks = np.zeros((2, 64, 64), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]))
        instances.masks = BitmapMasks(masks, 64, 64)
        shape = {"img_shape": (64, 64), "ori_shape": (64, 64), "scale_factor": (1.0, 1.0)}
        samples.append(DetDataSample(gt_instances=instances, metainfo=shape))
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8)
    return {"inputs": list(images), "data_samples": samples}


@pytest.mark.parametrize("name", ["dino", "faster_rcnn", "fcos", "mask_rcnn", "retinanet"])
def test_detector_trains_a_step_and_predicts(name: str) -> None:
    model = small_detectors.build(name)
    batch = model.data_preprocessor(image_batch(), training=True)
    total, _ = model.parse_losses(model.train()(**batch, mode="loss"))
    total.backward()
    assert torch.isfinite(total)
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    stem = model.backbone.conv1.weight.grad  # the far end of every kernel's backward
    assert stem.abs().sum() > 0
    with torch.no_grad():
        results = model.eval()(**model.data_preprocessor(image_batch()), mode="predict")
    for result in results:
        found = result.pred_instances
        assert 0 < len(found) <= 20
        assert found.bboxes.shape == (len(found), 4) and found.bboxes.isfinite().all()
        assert ((found.labels >= 0) & (found.labels < 3)).all()
        assert name != "mask_rcnn" or found.masks.shape == (len(found), 64, 64)
