"""torchvision's kernels in the place of mmcv's compiled operations, where mmcv has none.

mmcv's wheels on PyPI carry no compiled extension: `import mmcv.ops`, and `import mmdet.models` with
it, fail on the missing module `mmcv._ext`. `install()` puts a module there that offers the
operations detectors are made of, with mmcv's signatures: results are written into the buffers that
mmcv's wrappers hand over. A compiled mmcv, where there is one, is left alone.

Every kernel computes in float32 (float64 stays) with autocast off and rounds its result to the
caller's type. torchvision's kernels know no bfloat16, and in float16 a coordinate near 400 is off
by up to an eighth of a pixel; the price is a float32 copy of the features.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import struct
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:  # importing this module stays cheap: torch comes with the first kernel called
    from numpy.typing import NDArray
    from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

EXTENSION = "mmcv._ext"

# What the base packages say at import that no user of ours can act on: OneDL is a vendor's data
# platform, faster_coco_eval an optional metric, the moved class is used from its old place by mmdet
# itself, and the escape sequences stand in mmdet's docstrings, which Python reports once, when it
# first compiles the files.
_PRINTED_NOISE = frozenset({"Could not import OneDL. Skipping OneDL datasets."})
_WARNED_NOISE = (
    "faster_coco_eval is not installed",
    "``MultiScaleDeformableAttention`` has been moved",
    "Fail to import ``MultiScaleDeformableAttention``",
    "invalid escape sequence",
)
# The packages whose import makes that noise; mmdet.models is here for its escape sequences.
_NOISY_PACKAGES = ("mmdet.datasets", "mmdet.evaluation", "mmdet.models")

# The names that modules fill with a failing stand-in, or leave out, if imported before `install()`.
_EARLY_IMPORTS = (
    ("mmcv.cnn.bricks.transformer", "MultiScaleDeformableAttention"),
    ("mmdet.structures.mask.structures", "roi_align"),
    ("mmdet.evaluation.metrics.dump_odvg_results", "batched_nms"),
)


def install() -> bool:
    """True if this call put torchvision's kernels behind mmcv, False if nothing was to be done.

    Afterwards mmdet's packages are imported, without their noise, so that it costs a few seconds
    the first time. A compiled extension that fails to load (built for another torch) is replaced
    like a missing one, with a RuntimeWarning that says why it failed.
    """
    if active() == "torchvision":
        return False
    placed = not _compiled_extension_loads()
    with quiet_imports():
        if placed:
            _place_substitute()
        for package in _NOISY_PACKAGES:
            importlib.import_module(package)
    return placed


def active() -> str:
    """Whose kernels mmcv's operations run on: "mmcv" (compiled), "torchvision" (ours) or "none"."""
    module = sys.modules.get(EXTENSION)
    if isinstance(module, _Substitute):
        return "torchvision"
    return "mmcv" if module is not None or _compiled_extension_spec() is not None else "none"


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """A context in which mmcv's and mmdet's known import noise is dropped and nothing else is.

    Only the messages listed above vanish; every other print, warning, log line or error passes. It
    also ends, for this process and its children, albumentations' look for newer versions on PyPI.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    # mmdet's lines come through mmengine's print_log, which prints when it is given no logger. A
    # name in its module shadows the builtin for it alone: numba, imported on the way, looks for
    # the true `print`, and loggers made on the way would hold on to an exchanged sys.stdout.
    logger: Any = importlib.import_module("mmengine.logging.logger")
    real_print, real_show = getattr(logger, "print", print), warnings.showwarning

    def print_unless_noise(message: Any) -> None:
        if message not in _PRINTED_NOISE:
            real_print(message)

    def show_unless_noise(message: Warning | str, *place: Any, **options: Any) -> None:
        if not any(noise in str(message) for noise in _WARNED_NOISE):
            real_show(message, *place, **options)

    # Not warnings.catch_warnings: on its exit the filters that imported packages set would be lost.
    logger.print, warnings.showwarning = print_unless_noise, show_unless_noise
    try:
        yield
    finally:
        logger.print, warnings.showwarning = real_print, real_show


# ------------------------------------------------------------------- the place of the extension


class _Substitute(types.ModuleType):
    """The stand-in for `mmcv._ext`; operations it lacks fail when called, not when looked up."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        def unavailable(*_: Any, **__: Any) -> Any:
            raise NotImplementedError(
                f"mmcv's operation {name!r} has no counterpart among torchvision's kernels; "
                "it needs a compiled mmcv (build mmcv from source with MMCV_WITH_OPS=1)"
            )

        return unavailable


class _SubstituteLoader(importlib.abc.Loader):
    """The stand-in's maker: by a spec with a loader mmcv and mmengine recognise operations."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Substitute(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        for operation in _OPERATIONS:
            setattr(module, operation.__name__, operation)


def _place_substitute() -> None:
    """Nothing; `mmcv._ext` is ours from here on, also for what was imported without it."""
    spec = importlib.machinery.ModuleSpec(EXTENSION, _SubstituteLoader())
    module = importlib.util.module_from_spec(spec)
    _SubstituteLoader().exec_module(module)
    sys.modules[EXTENSION] = module
    operations = importlib.import_module("mmcv.ops")
    for early, name in _EARLY_IMPORTS:
        if early in sys.modules:
            setattr(sys.modules[early], name, getattr(operations, name))


def _compiled_extension_spec() -> importlib.machinery.ModuleSpec | None:
    """Where mmcv's compiled extension lies, or None; found without importing mmcv."""
    package = importlib.util.find_spec("mmcv")
    locations = package.submodule_search_locations if package is not None else None
    return importlib.machinery.PathFinder.find_spec(EXTENSION, locations) if locations else None


def _compiled_extension_loads() -> bool:
    """True if mmcv's own extension is imported or can be; warns of one that is there and broken."""
    if EXTENSION in sys.modules:
        return True
    spec = _compiled_extension_spec()
    if spec is None:
        return False
    try:
        importlib.import_module("torch")  # the extension links against torch's libraries
        importlib.import_module(EXTENSION)
    except ImportError as error:
        warnings.warn(
            f"{spec.origin} does not load ({error}); torchvision's kernels take its place",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True


# ------------------------------------------------------------------------------ shared by kernels


def _full_precision(kernel: Callable[P, R]) -> Callable[P, R]:
    """The kernel with autocast off on the device of its first argument."""

    @functools.wraps(kernel)
    def wrapped(*values: P.args, **options: P.kwargs) -> R:
        import torch

        first = values[0] if values else next(iter(options.values()))
        with torch.autocast(first.device.type, enabled=False):  # type: ignore[attr-defined]
            return kernel(*values, **options)

    return wrapped


def _wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in their common type, at least float32."""
    import torch

    kind = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return tuple(tensor.to(kind) for tensor in tensors)


def _torchvision() -> Any:
    """torchvision's C++ operators, registered with torch by importing torchvision."""
    import torch

    importlib.import_module("torchvision")
    return torch.ops.torchvision


# -------------------------------------------------------------------------------- suppression


@_full_precision
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """(K,) int64 indices of the boxes that no better box overlaps by more than the threshold.

    boxes (N, 4) corners in pixels; sides are x2 - x1 + offset. Best score first.
    """
    import torch

    boxes, scores = _wide(boxes, scores)
    if offset:  # moving the far corner is the same as adding to each side and each overlap
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    # mmcv compares in float32, torchvision's CPU kernel in float64; an overlap of exactly 0.6, say,
    # is above one's threshold and not above the other's unless the threshold is rounded first.
    threshold = struct.unpack("f", struct.pack("f", iou_threshold))[0]
    kept: Tensor = _torchvision().nms(boxes, scores, threshold)
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

    corners, values = (tensor.numpy() for tensor in _wide(boxes, scores))
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

    rows = _wide(dets)[0].numpy()
    order = np.argsort(-rows[:, 4], kind="stable")
    groups: list[list[int]] = []
    while order.size:
        first, rest = order[0], order[1:]
        matched = _overlaps(rows[first, :4], rows[rest, :4], offset=0) >= iou_threshold
        groups.append([int(first), *rest[matched].tolist()])
        order = rest[~matched]
    return groups


# -------------------------------------------------------------------------------------- pooling


@dataclasses.dataclass(frozen=True)
class _Bins:
    """mmcv's options of RoIAlign: output size in bins, feature pixels per image pixel, sampling."""

    aligned_height: int
    aligned_width: int
    spatial_scale: float
    sampling_ratio: int  # samples per bin and axis; 0 for one per feature pixel
    pool_mode: int  # 0 maximum, 1 mean
    aligned: bool

    @property
    def common(self) -> tuple[float, int, int]:
        """The three arguments torchvision's operators share."""
        return self.spatial_scale, self.aligned_height, self.aligned_width

    def grids(self, rois: Tensor) -> Iterator[tuple[Any, int, int]]:
        """Groups of rois with equal sample grids: an index into rois, rows and columns per bin."""
        import torch

        if self.sampling_ratio > 0:
            yield slice(None), self.sampling_ratio, self.sampling_ratio
            return
        shift = 0.5 if self.aligned else 0.0
        sides = (rois[:, 3:] * self.spatial_scale - shift) - (rois[:, 1:3] * self.spatial_scale - shift)
        per_bin = [sides[:, 1] / self.aligned_height, sides[:, 0] / self.aligned_width]
        # An empty roi has no sample in mmcv and pools to the lowest number; here it keeps one. That
        # is also what a roi of less than a pixel has where it is not aligned and widened to one.
        grids = torch.stack(per_bin, dim=1).ceil().clamp(min=1)
        # sync: the kernel's output shape depends on the grid. Only for the rare maximum.
        for rows, columns in sorted({(int(row), int(column)) for row, column in grids.tolist()}):
            chosen = (grids[:, 0] == rows) & (grids[:, 1] == columns)
            yield chosen.nonzero()[:, 0], rows, columns

    def per_sample(self, rows: int, columns: int) -> tuple[float, int, int]:
        """`common` with one output cell per sample in place of one per bin."""
        return self.spatial_scale, self.aligned_height * rows, self.aligned_width * columns


@_full_precision
def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **options: Any
) -> None:
    """Nothing; output (K, C, h, w) becomes the mean or maximum of the samples in each bin.

    input (N, C, H, W), rois (K, 5) rows of image index and corners in pixels, options as `_Bins`.
    torchvision averages only; the maximum is taken over its output at one cell per sample. The
    argmax is then the sample's row and column in its bin, where mmcv's is a place in the image.
    """
    bins, align = _Bins(**options), _torchvision().roi_align
    features, boxes = _wide(input, rois)
    if bins.pool_mode == 1:
        output.copy_(align(features, boxes, *bins.common, bins.sampling_ratio, bins.aligned))
        return
    for group, rows, columns in bins.grids(boxes):
        fine = align(features, boxes[group], *bins.per_sample(rows, columns), 1, bins.aligned)
        split = (*fine.shape[:2], bins.aligned_height, rows, bins.aligned_width, columns)
        best, where = fine.reshape(split).transpose(3, 4).flatten(-2).max(-1)
        output[group] = best.to(output.dtype)
        argmax_y[group] = where.div(columns, rounding_mode="floor").to(argmax_y.dtype)
        argmax_x[group] = where.remainder(columns).to(argmax_x.dtype)


@_full_precision
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **options: Any,
) -> None:
    """Nothing; grad_input (N, C, H, W), zeros before, becomes the gradient of the forward."""
    bins, align = _Bins(**options), _torchvision()._roi_align_backward
    grad, boxes = _wide(grad_output, rois)
    shape = tuple(grad_input.shape)
    if bins.pool_mode == 1:
        common = bins.common
        grad_input.copy_(align(grad, boxes, *common, *shape, bins.sampling_ratio, bins.aligned))
        return
    for group, rows, columns in bins.grids(boxes):
        where = (argmax_y[group].long() * columns + argmax_x[group].long())[..., None]
        cells = grad.new_zeros(*where.shape[:-1], rows * columns)
        cells.scatter_(-1, where, grad[group][..., None])
        fine = cells.reshape(*cells.shape[:-1], rows, columns).transpose(3, 4)
        fine = fine.flatten(4).flatten(2, 3)
        common = bins.per_sample(rows, columns)
        part = align(fine, boxes[group], *common, *shape, 1, bins.aligned)
        grad_input.add_(part.to(grad_input.dtype))


def _pooling_cells(
    rois: Tensor, bins: tuple[int, int], size: tuple[int, int], scale: float
) -> tuple[Tensor, Tensor]:
    """((K * h * w, 5) one roi in whole pixels per bin, (K, 1, h, w) bool of the empty bins).

    bins (h, w) per roi; size (H, W) of the features. Last pixels are included, as in torchvision.
    """
    import torch

    edges = []
    for axis in (0, 1):  # rows, columns
        start = rois[:, 2 - axis, None] * scale
        side = (rois[:, 4 - axis, None] + 1) * scale - start
        step = torch.arange(bins[axis], device=rois.device, dtype=rois.dtype)
        first = (step * (side / bins[axis]) + start).floor().clamp(0, size[axis])
        last = ((step + 1) * (side / bins[axis]) + start).ceil().clamp(0, size[axis])
        edges.append((first, torch.where(side > 0, last, first)))
    (top, bottom), (left, right) = edges
    top, bottom, left, right = top[:, :, None], bottom[:, :, None], left[:, None], right[:, None]
    empty = (right <= left) | (bottom <= top)
    parts = (rois[:, :1, None], left, top, right - 1, bottom - 1)
    cells = torch.stack([part.expand(empty.shape) for part in parts], dim=-1).reshape(-1, 5)
    return cells, empty[:, None]


@_full_precision
def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Nothing; output (K, C, h, w) becomes each bin's maximum, argmax its flat pixel, -1 if none.

    mmcv divides the unrounded roi into bins, torchvision rounds the roi first. To keep mmcv's
    bins each is handed to torchvision as a roi of its own, in whole pixels and pooled to one cell.
    """
    features, boxes = _wide(input, rois)
    bins, size = (pooled_height, pooled_width), (input.shape[2], input.shape[3])
    cells, empty = _pooling_cells(boxes, bins, size, spatial_scale)
    best, where = _torchvision().roi_pool(features, cells, 1.0, 1, 1)
    shape = (len(rois), *bins, input.shape[1])
    output.copy_(best.reshape(shape).movedim(-1, 1).masked_fill(empty, 0))
    argmax.copy_(where.reshape(shape).movedim(-1, 1).masked_fill(empty, -1))


@_full_precision
def roi_pool_backward(
    grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, **options: Any
) -> None:
    """Nothing; grad_input (N, C, H, W) becomes the gradient of `roi_pool_forward`."""
    grad, boxes = _wide(grad_output, rois)
    channels, bins = grad.shape[1], grad.shape[2] * grad.shape[3]
    cells = boxes.repeat_interleave(bins, dim=0)  # the backward reads only each roi's image
    grad, where = (
        tensor.movedim(1, -1).reshape(-1, channels, 1, 1).contiguous() for tensor in (grad, argmax)
    )
    shape = tuple(grad_input.shape)
    grad_input.copy_(_torchvision()._roi_pool_backward(grad, cells, where, 1.0, 1, 1, *shape))


# ----------------------------------------------------------------------------------- focal loss


def _signed_logits(
    logits: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """((N, C) logits of the true answer, factor per element, (N, C) bool of the true class).

    A target outside 0 .. C - 1 is background. Its weight is 1; mmcv reads past the array's end.
    """
    import torch

    classes = torch.arange(logits.shape[1], device=logits.device)
    positive = target[:, None] == classes
    factor = positive.to(logits.dtype) * (2 * alpha - 1) + (1 - alpha)
    if weight.numel():
        row = (positive * weight).sum(1) + (~positive.any(1)).to(logits.dtype)
        factor = factor * row[:, None]
    return torch.where(positive, logits, -logits), factor, positive


@_full_precision
def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Nothing; output (N, C) becomes alpha_t (1 - p_t)^gamma (-log p_t), Focal Loss, Eq. 5.

    input (N, C) logits, target (N,) int64 classes, weight (C,) or empty. In logits, so that it
    stays exact where mmcv's float32 probabilities reach 0 or 1 (logits beyond 17).
    """
    import torch

    logits, weights = _wide(input, weight)
    logits, factor, _ = _signed_logits(logits, target, weights, alpha)
    wrong = torch.sigmoid(-logits)
    output.copy_(factor * wrong**gamma * torch.nn.functional.softplus(-logits))


@_full_precision
def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Nothing; grad_input (N, C) becomes the derivative of each loss by its logit."""
    import torch

    logits, weights = _wide(input, weight)
    logits, factor, positive = _signed_logits(logits, target, weights, alpha)
    wrong = torch.sigmoid(-logits)
    slope = gamma * (1 - wrong) * torch.nn.functional.softplus(-logits) + wrong
    grad = factor * wrong**gamma * slope
    grad_input.copy_(torch.where(positive, -grad, grad))


# ---------------------------------------------------------------------- deformable convolutions

# Both in torchvision's order: stride, padding and dilation by row and column, groups.
_GEOMETRY = ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
_MODULATED_GEOMETRY = (
    *("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w"),
    *("group", "deformable_group"),
)


def _no_mask(input: Tensor, weight: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """The mask and bias that torchvision expects where there is neither."""
    return input.new_zeros(input.shape[0], 1), input.new_zeros(weight.shape[0])


def _deform_gradients(
    grad_output: Tensor, input: Tensor, weight: Tensor, offset: Tensor, options: dict[str, int]
) -> tuple[Tensor, ...]:
    """The gradients of input, weight and offset of the convolution without a mask."""
    tensors = _wide(grad_output, input, weight, offset)
    geometry = [options[name] for name in _GEOMETRY]
    backward = _torchvision()._deform_conv2d_backward
    gradients: tuple[Tensor, ...] = backward(*tensors, *_no_mask(*tensors[1:]), *geometry, False)
    return gradients[:3]


@_full_precision
def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, *scratch: Tensor, **options: int
) -> None:
    """Nothing; output (N, D, h, w) becomes the convolution at offset (N, 2 G kh kw, h, w) places.

    mmcv's scratch tensors and its im2col_step are not needed.
    """
    tensors = _wide(input, weight, offset)
    geometry = [options[name] for name in _GEOMETRY]
    output.copy_(_torchvision().deform_conv2d(*tensors, *_no_mask(*tensors), *geometry, False))


@_full_precision
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    *scratch: Tensor,
    **options: int,
) -> None:
    """Nothing; grad_input and grad_offset become the gradients of `deform_conv_forward`."""
    gradients = _deform_gradients(grad_output, input, weight, offset, options)
    grad_input.copy_(gradients[0])
    grad_offset.copy_(gradients[2])


@_full_precision
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    *scratch: Tensor,
    scale: float,
    **options: int,
) -> None:
    """Nothing; grad_weight becomes scale times the gradient of `deform_conv_forward`.

    mmcv asks in two calls and torchvision answers all at once, so the work is done twice. mmcv
    leaves the weight out of this one, and its gradient does not depend on it: zeros will do.
    """
    import torch

    zeros = torch.zeros_like(grad_weight)
    gradients = _deform_gradients(grad_output, input, zeros, offset, options)
    grad_weight.copy_(gradients[1] * scale)


@_full_precision
def modulated_deform_conv_forward(*tensors: Tensor, with_bias: bool, **options: int) -> None:
    """Nothing; the output becomes the convolution of samples times mask (N, G kh kw, h, w).

    tensors: input, weight, bias, scratch, offset, mask, output (N, D, h, w), scratch.
    """
    input, weight, bias, _, offset, mask, output, _ = tensors
    bias = bias if with_bias else bias.new_zeros(weight.shape[0])
    geometry = [options[name] for name in _MODULATED_GEOMETRY]
    wide = _wide(input, weight, offset, mask, bias)
    output.copy_(_torchvision().deform_conv2d(*wide, *geometry, True))


@_full_precision
def modulated_deform_conv_backward(*tensors: Tensor, with_bias: bool, **options: int) -> None:
    """Nothing; the gradients become those of `modulated_deform_conv_forward`.

    tensors: input, weight, bias, scratch, offset, mask, scratch, the gradients of input, weight,
    bias, offset and mask, and that of the output.
    """
    input, weight, bias, _, offset, mask, _, *buffers, grad_output = tensors
    bias = bias if with_bias else bias.new_zeros(weight.shape[0])
    geometry = [options[name] for name in _MODULATED_GEOMETRY]
    wide = _wide(grad_output, input, weight, offset, mask, bias)
    gradients = _torchvision()._deform_conv2d_backward(*wide, *geometry, True)
    grad_input, grad_weight, grad_bias, grad_offset, grad_mask = buffers
    ordered = [grad_input, grad_weight, grad_offset, grad_mask, *([grad_bias] if with_bias else [])]
    for buffer, gradient in zip(ordered, gradients, strict=False):  # without bias one is left over
        buffer.copy_(gradient)


# ------------------------------------------------------------------------- deformable attention


def _attend(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """(N, queries, channels) attention by mmcv's own PyTorch version; torchvision has none."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    # sync: grid_sample needs each level's height and width on the host.
    result: Tensor = multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)
    return result


@_full_precision
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """(N, queries, heads * d) samples of value (N, keys, heads, d) summed by attention weights.

    sampling_locations (N, queries, heads, levels, points, 2) lie in 0 .. 1.
    """
    tensors = _wide(value, sampling_locations, attention_weights)
    return _attend(tensors[0], value_spatial_shapes, *tensors[1:]).to(value.dtype)


@_full_precision
def ms_deform_attn_backward(*tensors: Tensor, im2col_step: int) -> None:
    """Nothing; the gradients become those of `ms_deform_attn_forward`, which is run again.

    tensors: the forward's five, its output's gradient, those of value, locations and weights.
    """
    import torch

    value, shapes, _, locations, weights, grad_output, *buffers = tensors
    value, locations, weights, grad_output = _wide(value, locations, weights, grad_output)
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
        output = _attend(leaves[0], shapes, *leaves[1:])
    gradients = torch.autograd.grad(output, leaves, grad_output)
    for buffer, gradient in zip(buffers, gradients, strict=True):
        buffer.copy_(gradient)


# ------------------------------------------------------------------------------ what mmcv reports


def get_compiler_version() -> str:
    """What mmcv's environment report shows as the compiler of its operations."""
    from torchvision import __version__

    return f"none (torchvision {__version__})"


def get_compiling_cuda_version() -> str:
    """The CUDA version torch, and with it torchvision, was built for, or "not available"."""
    import torch

    return torch.version.cuda or "not available"


# fmt: off
_OPERATIONS: tuple[Callable[..., Any], ...] = (
    nms, softnms, nms_match,
    roi_align_forward, roi_align_backward,
    roi_pool_forward, roi_pool_backward,
    sigmoid_focal_loss_forward, sigmoid_focal_loss_backward,
    deform_conv_forward, deform_conv_backward_input, deform_conv_backward_parameters,
    modulated_deform_conv_forward, modulated_deform_conv_backward,
    ms_deform_attn_forward, ms_deform_attn_backward,
    get_compiler_version, get_compiling_cuda_version,
)
# fmt: on
