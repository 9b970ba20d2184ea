"""Slow and obvious versions of mmcv's operations, loop by loop, to hold the fast ones against.

Written from the papers and from mmcv's C++ and CUDA sources. The pooling, convolution and attention
functions are differentiable by autograd, so they are the oracle of the backward kernels too.
"""

import math

import torch
from torch import Tensor


def overlap(first: Tensor, second: Tensor, offset: int) -> float:
    """The intersection over union of two boxes (4,) whose sides are far - near + offset."""
    x1, y1, x2, y2 = first.tolist()
    u1, v1, u2, v2 = second.tolist()
    width = max(min(x2, u2) - max(x1, u1) + offset, 0.0)
    height = max(min(y2, v2) - max(y1, v1) + offset, 0.0)
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    other = (u2 - u1 + offset) * (v2 - v1 + offset)
    union = area + other - width * height
    return width * height / union if union else 0.0


def nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> list[int]:
    """The indices of the boxes kept, best first."""
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if all(overlap(boxes[index], boxes[better], offset) <= threshold for better in kept):
            kept.append(index)
    return kept


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    sigma: float,
    min_score: float,
    method: str,
    offset: int,
) -> tuple[list[int], list[float]]:
    """The indices kept and their decayed scores, in the order in which they were the best left."""
    left = dict(enumerate(scores.tolist()))
    kept: list[int] = []
    decayed: list[float] = []
    while left:
        best = max(left, key=lambda index: left[index])
        kept.append(best)
        decayed.append(left.pop(best))
        for index in list(left):
            shared = overlap(boxes[best], boxes[index], offset)
            if method == "gaussian":
                left[index] *= math.exp(-(shared**2) / sigma)
            elif shared >= threshold:
                left[index] *= 1 - shared if method == "linear" else 0
            if left[index] < min_score:
                del left[index]
    return kept, decayed


def nms_match(boxes: Tensor, scores: Tensor, threshold: float) -> list[list[int]]:
    """The groups of one kept box and the boxes it suppressed, in order of score."""
    groups: list[list[int]] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        for group in groups:
            if overlap(boxes[group[0]], boxes[index], 0) >= threshold:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def sample_clamped(plane: Tensor, y: float, x: float) -> Tensor:
    """The value of a (H, W) plane between pixels, held at the border up to one pixel outside."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.sum() * 0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    return sample_zeros(plane, y, x)


def sample_zeros(plane: Tensor, y: Tensor | float, x: Tensor | float) -> Tensor:
    """The value of a (H, W) plane between pixels, with zeros outside; differentiable in y and x."""
    height, width = plane.shape
    top, left = (math.floor(torch.as_tensor(place).detach()) for place in (y, x))
    value = plane.sum() * 0
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                near_y = 1 - (y - row) if row == top else 1 - (row - y)
                near_x = 1 - (x - column) if column == left else 1 - (column - x)
                value = value + near_y * near_x * plane[row, column]
    return value


def roi_align(
    features: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    scale: float,
    ratio: int,
    mode: str,
    aligned: bool,
) -> Tensor:
    """(K, C, h, w) mean or maximum of the samples in each bin: Mask R-CNN, Section 3."""
    shift = 0.5 if aligned else 0.0
    rows = []
    for roi in rois.tolist():
        x1, y1, x2, y2 = (edge * scale - shift for edge in roi[1:])
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        grid_y = ratio or max(math.ceil(height / size[0]), 1)
        grid_x = ratio or max(math.ceil(width / size[1]), 1)
        for plane in features[int(roi[0])]:
            for row in range(size[0]):
                for column in range(size[1]):
                    samples = [
                        sample_clamped(
                            plane,
                            y1 + (row + (i + 0.5) / grid_y) * height / size[0],
                            x1 + (column + (j + 0.5) / grid_x) * width / size[1],
                        )
                        for i in range(grid_y)
                        for j in range(grid_x)
                    ]
                    values = torch.stack(samples)
                    rows.append(values.mean() if mode == "avg" else values.max())
    return torch.stack(rows).reshape(len(rois), features.shape[1], *size)


def roi_pool(features: Tensor, rois: Tensor, size: tuple[int, int], scale: float) -> Tensor:
    """(K, C, h, w) maximum of the pixels that each bin touches: Fast R-CNN, Section 2.1."""
    height, width = features.shape[2:]
    rows = []
    for roi in rois.tolist():
        x1, y1 = roi[1] * scale, roi[2] * scale
        x2, y2 = (roi[3] + 1) * scale, (roi[4] + 1) * scale
        step_x, step_y = (x2 - x1) / size[1], (y2 - y1) / size[0]
        for plane in features[int(roi[0])]:
            for row in range(size[0]):
                for column in range(size[1]):
                    top = min(max(math.floor(row * step_y + y1), 0), height)
                    bottom = min(max(math.ceil((row + 1) * step_y + y1), 0), height)
                    left = min(max(math.floor(column * step_x + x1), 0), width)
                    right = min(max(math.ceil((column + 1) * step_x + x1), 0), width)
                    empty = bottom <= top or right <= left or x2 <= x1 or y2 <= y1
                    pixels = plane[top:bottom, left:right]
                    rows.append(plane.sum() * 0 if empty else pixels.max())
    return torch.stack(rows).reshape(len(rois), features.shape[1], *size)


def sigmoid_focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float
) -> Tensor:
    """(N, C) losses in mmcv's own form, with probabilities: Focal Loss, Eq. 5."""
    rows = []
    for row, label in zip(logits, target.tolist(), strict=True):
        for column, logit in enumerate(row):
            p = 1 / (1 + torch.exp(-logit))
            if column == label:
                loss = -alpha * (1 - p) ** gamma * torch.log(p)
            else:
                loss = -(1 - alpha) * p**gamma * torch.log(1 - p)
            known = weight is not None and 0 <= label < len(weight)
            rows.append(loss * weight[label] if known else loss)
    return torch.stack(rows).reshape(logits.shape)


def deform_conv2d(
    features: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    deform_groups: int,
) -> Tensor:
    """(N, D, h, w) deformable convolution, modulated if there is a mask: DCN v1 Eq. 2, v2 Eq. 1."""
    outputs, inputs, kernel_h, kernel_w = weight.shape
    channels = features.shape[1]
    images, _, height, width = offset.shape
    result = []
    for image in range(images):
        for out in range(outputs):
            group = out // (outputs // groups)
            for row in range(height):
                for column in range(width):
                    value = features.sum() * 0 + (bias[out] if bias is not None else 0)
                    for inner in range(inputs):
                        channel = group * inputs + inner
                        part = channel // (channels // deform_groups)
                        for i in range(kernel_h):
                            for j in range(kernel_w):
                                tap = (part * kernel_h + i) * kernel_w + j
                                dy, dx = offset[image, 2 * tap : 2 * tap + 2, row, column]
                                y = row * stride - padding + i * dilation + dy
                                x = column * stride - padding + j * dilation + dx
                                sample = sample_zeros(features[image, channel], y, x)
                                if mask is not None:
                                    sample = sample * mask[image, tap, row, column]
                                value = value + weight[out, inner, i, j] * sample
                    result.append(value)
    return torch.stack(result).reshape(images, outputs, height, width)


def deform_attention(
    value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """(N, queries, heads * d) attention over sampled places: Deformable DETR, Eq. 3."""
    images, _, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    result = []
    for image in range(images):
        for query in range(queries):
            for head in range(heads):
                total = [value.sum() * 0 for _ in range(channels)]
                start = 0
                for level, (height, width) in enumerate(shapes):
                    level_values = value[image, start : start + height * width, head]
                    start += height * width
                    for point in range(points):
                        place = locations[image, query, head, level, point]
                        factor = weights[image, query, head, level, point]
                        x, y = place[0] * width - 0.5, place[1] * height - 0.5
                        for channel in range(channels):
                            plane = level_values[:, channel].reshape(height, width)
                            total[channel] = total[channel] + factor * sample_zeros(plane, y, x)
                result.extend(total)
    return torch.stack(result).reshape(images, queries, heads * channels)
