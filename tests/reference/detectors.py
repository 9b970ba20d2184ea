"""A tiny Faster R-CNN with lively scores; images and labels in our types and the same in mmdet's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from ssod.core.labels import BoxLabels
from ssod.models import frcnn
from ssod.models.views import SemiBatch, View
from ssod.study.benchmark.lively import standardise

CONFIG = Path(__file__).parent / "tiny_faster_rcnn.py"
SIZES = ((96, 128), (70, 50))  # differ in both sides, so one padded batch holds padding of either kind
NUM_CLASSES = 8  # whatever the config's data set has


def config(exhaustive: bool = True, trainable_norm: bool = False) -> Any:
    """The detector's config; `exhaustive` samplers take every box there is, so nothing is left to chance."""
    detector = Config.fromfile(CONFIG).model.detector
    detector.roi_head.bbox_head.num_classes = NUM_CLASSES
    detector.backbone.norm_cfg.requires_grad = trainable_norm
    detector.backbone.norm_eval = not trainable_norm
    if exhaustive:
        for stage in ("rpn", "rcnn"):
            detector.train_cfg[stage].sampler.update(num=10**6, pos_fraction=1.0)
    return detector


def build(cfg: Any, seed: int = 0) -> Any:
    """The mmdet detector in train mode; last layers enlarged, so that scores and boxes are not all alike."""
    from mmdet.registry import MODELS

    torch.manual_seed(seed)
    return enliven(MODELS.build(cfg).train())


@torch.no_grad()
def enliven(detector: Any) -> Any:
    """The detector with last layers scaled by what they say of `view()`: scores spread from 0 to 1.

    Objectness logits, class logits and box codes get a fixed mean and deviation over its boxes.
    """
    look, head = view(), detector.roi_head.bbox_head
    torch.nn.init.xavier_normal_(detector.rpn_head.rpn_conv.weight)
    for layer in (detector.rpn_head.rpn_cls, detector.rpn_head.rpn_reg, head.fc_cls, head.fc_reg):
        torch.nn.init.normal_(layer.weight)
    pyramid = frcnn.features(detector, look.images)
    rpn = frcnn.rpn_forward(detector, pyramid)
    standardise(detector.rpn_head.rpn_cls, rpn.logits[..., None], deviation=2.0)
    standardise(detector.rpn_head.rpn_reg, rpn.deltas[..., None], deviation=0.3)
    rpn = frcnn.rpn_forward(detector, pyramid)
    found = frcnn.proposals(detector, rpn, look, detector.test_cfg.rpn)
    [(logits, codes)] = frcnn.roi_forward(detector, pyramid, [(0, found.boxes)])
    standardise(head.fc_cls, logits, deviation=2.0)
    standardise(head.fc_reg, codes, deviation=1.0)
    head.fc_cls.bias[-1] += 2.5  # a detector calls most boxes background
    return detector


def view(sizes: tuple[tuple[int, int], ...] = SIZES, seed: int = 0) -> View:
    """Smooth random images of these (height, width), padded together to multiples of 32."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor(sizes, dtype=torch.float32)
    padded = (size / 32).ceil() * 32
    height, width = (int(side) for side in padded.amax(dim=0))
    images = torch.zeros(len(sizes), 3, height, width)
    for row, (h, w) in zip(images, sizes, strict=True):
        coarse = torch.randn(1, 3, h // 8 + 1, w // 8 + 1, generator=generator) * 1.5
        row[:, :h, :w] = torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear")[0]
    return View(images=images, size=size, padded=padded)


def truth(counts: tuple[int, ...] = (4, 2), seed: int = 0, of: View | None = None) -> BoxLabels:
    """Random boxes of 10 to 40 px inside the images of a view, so many in each."""
    generator = torch.Generator().manual_seed(seed)
    boxes, classes = [], []
    for (height, width), count in zip((of or view()).size, counts, strict=True):
        side = 10 + torch.rand(count, 2, generator=generator) * 30
        corner = torch.rand(count, 2, generator=generator) * (torch.stack([width, height]) - side)
        boxes.append(torch.cat([corner, corner + side], dim=1))
        classes.append(torch.randint(NUM_CLASSES, (count,), generator=generator))
    return BoxLabels.pad(boxes, classes)


def samples(look: View, labels: BoxLabels | None = None) -> list[Any]:
    """A view's images as mmdet's data samples, with the valid labels as annotations."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    made = []
    for image in range(len(look.size)):
        sample = DetDataSample()
        shape = tuple(int(side) for side in look.size[image])
        sample.set_metainfo(
            dict(
                img_shape=shape,
                ori_shape=shape,
                pad_shape=tuple(int(side) for side in look.padded[image]),
                batch_input_shape=tuple(look.images.shape[2:]),
                scale_factor=(1.0, 1.0),
                homography_matrix=np.eye(3, dtype=np.float32),
            )
        )
        sample.gt_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
        if labels is not None:
            sample.gt_instances = instances(labels, image, "labels")
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
        made.append(sample)
    return made


def instances(labels: BoxLabels, image: int, classes: str = "labels") -> Any:
    """One image's valid labels as mmdet's InstanceData."""
    from mmengine.structures import InstanceData

    valid = labels.valid[image]
    return InstanceData(
        bboxes=labels.boxes[image, valid],
        scores=labels.scores[image, valid],
        **{classes: labels.classes[image, valid]},
    )


def near(labels: BoxLabels, count: int = 60, seed: int = 0, holes: bool = True) -> BoxLabels:
    """Proposals (B, count): half are labels moved a little, half random; some slots are padding."""
    generator = torch.Generator().manual_seed(seed)
    images, slots = labels.valid.shape
    which = torch.randint(slots, (images, count), generator=generator)
    boxes = labels.boxes.gather(1, which[..., None].expand(-1, -1, 4)).clone()
    boxes += torch.randn(boxes.shape, generator=generator) * 3
    corner = torch.rand(images, count // 2, 2, generator=generator) * 40
    boxes[:, ::2] = torch.cat([corner, corner + 30], dim=-1)
    boxes[..., 2:] = torch.maximum(boxes[..., 2:], boxes[..., :2] + 4)
    valid = torch.rand(images, count, generator=generator) > (0.2 if holes else -1.0)
    scores = torch.rand(images, count, generator=generator)
    return BoxLabels(boxes, torch.zeros(images, count).long(), scores, valid)


def turn(angle: float, shift: float) -> Tensor:
    """A rotation about the corner with a shift (3, 3)."""
    c, s = float(np.cos(angle)), float(np.sin(angle))
    return torch.tensor([[c, -s, shift], [s, c, -shift], [0.0, 0.0, 1.0]])


def semi_batch(seed: int = 0) -> SemiBatch:
    """Two labeled and two unlabeled images; the strong view is turned a little against the weak one."""
    labeled = view(seed=seed)
    weak = view(((96, 96), (64, 120)), seed=seed + 1)
    strong = view(((90, 128), (96, 80)), seed=seed + 2)
    there = torch.stack([turn(0.1, 4.0), turn(-0.15, -3.0)])
    return SemiBatch(
        labeled=labeled,
        truth=truth(of=labeled, seed=seed),
        weak=weak,
        strong=strong,
        weak_to_strong=there,
        strong_to_weak=there.inverse(),
    )


def student_and_teacher(loss: dict[str, Any] | None = None) -> tuple[Any, Any, SemiBatch]:
    """A student with this class loss (None: its config's), a teacher that differs from it, a batch."""
    cfg = config()
    if loss is not None:
        cfg.roi_head.bbox_head.loss_cls = loss
    return build(cfg, 0), build(cfg, 1).eval().requires_grad_(False), semi_batch()


def method(name: str, options: dict[str, Any]) -> Any:
    """A method of the registry."""
    from ssod.registry import METHODS

    return METHODS.build(dict(type=name) | options)


def one_step(chosen: Any, networks: tuple[Any, Any, SemiBatch]) -> dict[str, Tensor]:
    """The losses and counts of a method's first step, always with the same random numbers."""
    torch.manual_seed(0)
    return dict(chosen.losses(*networks, chosen.unsup_weight(0)))


def gradients(detector: Any, loss: Tensor) -> dict[str, Tensor]:
    """The loss's gradient for every trainable parameter, 0 where it has none."""
    named = {name: each for name, each in detector.named_parameters() if each.requires_grad}
    if not loss.requires_grad:  # mmdet's box loss without positives is a bare 0
        return {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(named.items(), found, strict=True)
    }


def assert_same_gradients(detector: Any, ours: Tensor, theirs: Tensor) -> None:
    """Two losses have the same gradients, to 1e-4 of the largest: float32 sums in another order."""
    expected = gradients(detector, theirs)
    for name, gradient in gradients(detector, ours).items():
        scale = expected[name].abs().max().clamp(min=1e-3)
        assert (gradient - expected[name]).abs().max() <= 1e-4 * scale, name


def semi_detector(
    method: dict[str, Any] | None,
    teacher: dict[str, Any] | None = None,
    seed: int = 0,
    model: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A SemiDetector in train mode, its student and its teacher lively and not the same.

    model: more of its options; the rest are those of `config`.
    """
    from ssod.registry import MODELS

    torch.manual_seed(seed)
    built = MODELS.build(
        dict(
            type="SemiDetector",
            detector=config(**options),
            method=method,
            teacher=teacher,
            data_preprocessor=dict(type="SemiPreprocessor", pad_size_divisor=32),
            **(model or {}),
        )
    ).train()
    enliven(built.student)
    if built.teacher is not None:
        enliven(built.teacher)
    return built
