"""Every stage function against mmdet's own on the same weights, images and boxes: values and gradients."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import detectors
from torch import Tensor

from ssod.core.labels import BoxLabels
from ssod.models import frcnn
from ssod.models.supported import two_stage_fault

Change = dict[str, Any]
L1 = dict(type="L1Loss", loss_weight=2.0)
SMOOTH = dict(type="SmoothL1Loss", beta=0.2, loss_weight=1.0)
GIOU = dict(type="GIoULoss", loss_weight=3.0)


def build(change: Change | None = None, **options: Any) -> Any:
    config = detectors.config(**options)
    merge(config, change or {})
    return detectors.build(config)


def merge(config: Any, change: Change) -> None:
    """Sets dotted keys, `a.b.c`; a dict replaces what stood there."""
    for key, value in change.items():
        *path, last = key.split(".")
        at = config
        for part in path:
            at = at[part]
        at[last] = value


@pytest.fixture(scope="module")
def detector(registered: None) -> Any:
    """The tiny detector with exhaustive samplers and no limit that hides a difference."""
    return build({"test_cfg.rcnn.max_per_img": 1000})


def assert_same_losses(detector: Any, ours: dict[str, Tensor], theirs: dict[str, Any]) -> None:
    """Losses agree to 1e-5, and so do the gradients of each for every parameter."""
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        expected = sum(theirs[key]) if isinstance(theirs[key], list) else theirs[key]
        torch.testing.assert_close(
            value, torch.as_tensor(expected).reshape(()), rtol=1e-5, atol=1e-6, msg=key
        )
        if "loss" in key:
            detectors.assert_same_gradients(detector, value, expected)


def assert_same_boxes(ours: BoxLabels, image: int, theirs: Any) -> None:
    """One image's valid boxes are those of an InstanceData, in the same order."""
    valid = ours.valid[image]
    assert int(valid.sum()) == len(theirs.scores) > 0
    torch.testing.assert_close(ours.scores[image, valid], theirs.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.boxes[image, valid], theirs.bboxes, rtol=1e-4, atol=1e-3)
    assert ours.classes[image, valid].equal(theirs.labels)


# ---------------------------------------------------------------- region proposals

PROPOSALS: list[tuple[str, Change]] = [
    ("as configured", {}),
    ("a larger smallest box", dict(min_bbox_size=20)),
    ("few kept before NMS", dict(nms_pre=20)),
    ("all kept before NMS", dict(nms_pre=-1)),
    ("few kept after NMS", dict(max_per_img=7)),
    ("strict NMS", dict(nms=dict(type="nms", iou_threshold=0.3))),
]


@pytest.mark.parametrize("change", [row[1] for row in PROPOSALS], ids=[row[0] for row in PROPOSALS])
@torch.no_grad()
def test_proposals_are_mmdets(detector: Any, change: Change) -> None:
    config = detector.test_cfg.rpn.copy()
    config.update(change)
    view = detectors.view()
    pyramid = frcnn.features(detector, view.images)
    ours = frcnn.proposals(detector, frcnn.rpn_forward(detector, pyramid), view, config)
    metas = [sample.metainfo for sample in detectors.samples(view)]
    theirs = detector.rpn_head.predict_by_feat(*detector.rpn_head(pyramid), batch_img_metas=metas, cfg=config)
    default = detector.rpn_head.predict(pyramid, detectors.samples(view), rescale=False)
    for image in range(2):
        assert_same_boxes(ours, image, theirs[image])
        if not change:
            assert_same_boxes(ours, image, default[image])


def test_a_large_batch_suppresses_like_single_images(detector: Any) -> None:
    """A small box that overlaps a better one by 0.6 goes, one by 0.45 stays, whatever image they are in."""
    num, images = 20000, 8
    anchors = torch.zeros(num, 4)  # without sides, dropped by min_bbox_size
    anchors[0] = torch.tensor([1200.0, 700, 1210, 710])
    anchors[1] = torch.tensor([1202.5, 700, 1212.5, 710])  # IoU 0.6 with the first
    anchors[2] = torch.tensor([1200.0, 703.8, 1210, 713.8])  # IoU 0.45
    logits = torch.linspace(3, -3, num).expand(images, -1)
    rpn = frcnn.RPNOutput(logits, torch.zeros(images, num, 4), anchors, torch.zeros(num, 2), (num,))
    size = torch.tensor([[800.0, 1333.0]]).expand(images, -1)
    view = replace(detectors.view(), size=size)
    config = dict(nms_pre=-1, max_per_img=10, min_bbox_size=0, nms=dict(type="nms", iou_threshold=0.5))
    found = frcnn.proposals(detector, rpn, view, type(detector.test_cfg)(config))
    assert found.valid.sum(dim=1).tolist() == [2] * images
    assert found.boxes.equal(anchors[[0, 2]].expand(images, -1, -1))


RPN: list[tuple[str, Change]] = [
    ("as configured", {}),
    ("only anchors inside the image", {"train_cfg.rpn.allowed_border": 0}),
    (
        "no rescue of low-quality matches",
        {"train_cfg.rpn.assigner.match_low_quality": False, "train_cfg.rpn.assigner.pos_iou_thr": 0.4},
    ),
    ("other bounds", {"train_cfg.rpn.assigner.pos_iou_thr": 0.5, "train_cfg.rpn.assigner.neg_iou_thr": 0.4}),
    ("weighted L1", {"rpn_head.loss_bbox": L1}),
    ("smooth L1", {"rpn_head.loss_bbox": SMOOTH}),
    ("GIoU on decoded boxes", {"rpn_head.loss_bbox": GIOU, "rpn_head.reg_decoded_bbox": True}),
    ("half the class loss", {"rpn_head.loss_cls.loss_weight": 0.5}),
]


def rpn_both(detector: Any, counts: tuple[int, ...]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    view, truth = detectors.view(), detectors.truth(counts).class_agnostic()
    pyramid = frcnn.features(detector, view.images)
    ours = frcnn.rpn_losses(detector, frcnn.rpn_forward(detector, pyramid), truth, view)
    return ours, detector.rpn_head.loss(pyramid, detectors.samples(view, truth))


@pytest.mark.parametrize("change", [row[1] for row in RPN], ids=[row[0] for row in RPN])
def test_rpn_losses_are_mmdets(registered: None, change: Change) -> None:
    detector = build(change)
    assert_same_losses(detector, *rpn_both(detector, (4, 2)))


@pytest.mark.parametrize("counts", [(3, 0), (0, 0)], ids=["an image without labels", "no label at all"])
def test_rpn_losses_without_labels_are_mmdets(detector: Any, counts: tuple[int, int]) -> None:
    assert_same_losses(detector, *rpn_both(detector, counts))


def test_anchors_off_the_image_are_not_background(detector: Any) -> None:
    """The second image fills 96 x 64 of 96 x 128: the rest of the stack has anchors but no say."""
    view, truth = detectors.view(), detectors.truth()
    rpn = frcnn.rpn_forward(detector, frcnn.features(detector, view.images))
    inside = frcnn.rpn_losses(detector, rpn, truth, view)
    full = frcnn.rpn_losses(detector, rpn, truth, replace(view, padded=view.padded[:1].expand(2, -1)))
    assert (inside["loss_rpn_cls"] - full["loss_rpn_cls"]).abs() > 1e-3
    anchors = replace(rpn, logits=rpn.logits.clone())
    anchors.logits[1, rpn.cells[:, 1] >= 64] = 50.0
    changed = frcnn.rpn_losses(detector, anchors, truth, view)
    torch.testing.assert_close(changed["loss_rpn_cls"], inside["loss_rpn_cls"])


# ---------------------------------------------------------------- regions of interest

AGNOSTIC = {"roi_head.bbox_head.reg_class_agnostic": True}
ROI: list[tuple[str, Change]] = [
    ("as configured", {}),
    ("labels don't join the proposals", {"train_cfg.rcnn.sampler.add_gt_as_proposals": False}),
    ("one box for all classes", AGNOSTIC),
    ("smooth L1", {"roi_head.bbox_head.loss_bbox": SMOOTH}),
    (
        "GIoU on decoded boxes",
        {"roi_head.bbox_head.loss_bbox": GIOU, "roi_head.bbox_head.reg_decoded_bbox": True},
    ),
    (
        "GIoU on decoded boxes, one for all classes",
        {"roi_head.bbox_head.loss_bbox": GIOU, "roi_head.bbox_head.reg_decoded_bbox": True} | AGNOSTIC,
    ),
    ("rescue of low-quality matches", {"train_cfg.rcnn.assigner.match_low_quality": True}),
    ("a gap", {"train_cfg.rcnn.assigner.pos_iou_thr": 0.6, "train_cfg.rcnn.assigner.neg_iou_thr": 0.4}),
]


def roi_both(detector: Any, counts: tuple[int, ...]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    view, truth = detectors.view(), detectors.truth(counts)
    found = detectors.near(detectors.truth())
    pyramid = frcnn.features(detector, view.images)
    targets = frcnn.sample_rois(detector, found, truth)
    [outputs] = frcnn.roi_forward(detector, pyramid, [(0, targets.boxes)])
    ours = frcnn.roi_losses(detector, *outputs, targets)
    proposals = [detectors.instances(found, image) for image in range(2)]
    return ours, detector.roi_head.loss(pyramid, proposals, detectors.samples(view, truth))


@pytest.mark.parametrize("change", [row[1] for row in ROI], ids=[row[0] for row in ROI])
def test_roi_losses_are_mmdets(registered: None, change: Change) -> None:
    detector = build(change)
    assert_same_losses(detector, *roi_both(detector, (4, 2)))


@pytest.mark.parametrize("counts", [(3, 0), (0, 0)], ids=["an image without labels", "no label at all"])
def test_roi_losses_without_labels_are_mmdets(detector: Any, counts: tuple[int, int]) -> None:
    assert_same_losses(detector, *roi_both(detector, counts))


def test_boxes_that_do_not_count_leave_no_gradient(registered: None) -> None:
    """SIoU's gradient at two boxes without sides is not a number, and 0 times it isn't either."""
    change = {
        "roi_head.bbox_head.loss_bbox": dict(type="SIoULoss"),
        "roi_head.bbox_head.reg_decoded_bbox": True,
    }
    detector = build(change)
    view, pyramid = detectors.view(), frcnn.features(detector, detectors.view().images)
    assert len(view.images) == 2
    targets = frcnn.sample_rois(detector, detectors.near(detectors.truth()), detectors.truth((0, 0)))
    few = targets.positives(4)
    [outputs] = frcnn.roi_forward(detector, pyramid, [(0, few.boxes)])
    loss = frcnn.roi_losses(detector, *outputs, few)["loss_bbox"]
    loss.backward()
    assert loss == 0
    assert all(each.grad is None or each.grad.isfinite().all() for each in detector.parameters())


def test_sampled_rois_by_number(registered: None) -> None:
    """64 boxes an image, 16 of them positive; labels join in, each matched to itself, with exact codes."""
    sampler = dict(type="RandomSampler", num=64, pos_fraction=0.25, add_gt_as_proposals=True)
    detector = build({"train_cfg.rcnn.sampler": sampler})
    truth = detectors.truth((4, 2))
    targets = frcnn.sample_rois(detector, detectors.near(truth, 400), truth)
    assert targets.used.sum(dim=1).tolist() == [64, 64] and targets.boxes.shape == (2, 64, 4)
    assert targets.positive.sum(dim=1).tolist() == [16, 16] and frcnn.max_positives(detector) == 16
    assert targets.positive[:, :16].all()  # `positives(max_positives)` loses none
    assert targets.positives(16).delta_normaliser == targets.delta_normaliser == 128
    assert targets.classes[~targets.positive].unique().tolist() == [8]
    coder = detector.roi_head.bbox_head.bbox_coder
    for image in range(2):
        positive = targets.positive[image]
        boxes = coder.decode(targets.boxes[image, positive], targets.deltas[image, positive])
        distance = (boxes[:, None] - truth.boxes[image, truth.valid[image]]).abs().amax(dim=-1)
        assert (distance.amin(dim=1) < 1e-2).all()  # every positive learns to become a label
        assert targets.classes[image, positive].equal(truth.classes[image][distance.argmin(dim=1)])


def learned(detector: Any, found: BoxLabels, truth: BoxLabels) -> list[list[tuple[Any, ...]]]:
    """The positives of each image and their classes, sorted: of `sample_rois`."""
    targets = frcnn.sample_rois(detector, found, truth)
    flags = targets.positive.tolist()
    rows = [
        zip(*each, strict=True)
        for each in zip(targets.boxes.tolist(), targets.classes.tolist(), flags, strict=True)
    ]
    return [sorted((*box, label) for box, label, positive in image if positive) for image in rows]


def learned_by_mmdet(detector: Any, found: BoxLabels, truth: BoxLabels) -> list[list[tuple[Any, ...]]]:
    """The same of mmdet's assigner and sampler."""
    from mmengine.structures import InstanceData

    head, images = detector.roi_head, []
    for image in range(len(truth.valid)):
        priors = InstanceData(priors=found.boxes[image, found.valid[image]])
        known = detectors.instances(truth, image)
        matched = head.bbox_assigner.assign(priors, known, None)
        picked = head.bbox_sampler.sample(matched, priors, known)
        rows = zip(picked.pos_priors.tolist(), picked.pos_gt_labels.tolist(), strict=True)
        images.append(sorted((*box, label) for box, label in rows))
    return images


@pytest.mark.parametrize("joins", [True, False])
def test_a_label_takes_no_rescue_from_a_proposal(registered: None, joins: bool) -> None:
    """Nearer to the first label, but the best of the second: mmdet matches before the labels join in."""
    sampler = dict(type="RandomSampler", num=10**6, pos_fraction=1.0, add_gt_as_proposals=joins)
    rescue = {"train_cfg.rcnn.sampler": sampler, "train_cfg.rcnn.assigner.match_low_quality": True}
    detector = build(rescue)
    first, second, found = [10.0, 10.0, 50.0, 50.0], [10.0, 10.0, 70.0, 50.0], [10.0, 10.0, 58.0, 50.0]
    truth = BoxLabels.pad([torch.tensor([first, second])], [torch.tensor([0, 1])])
    candidate = BoxLabels.pad([torch.tensor([found])], [torch.tensor([0])])
    both = [(*first, 0), (*second, 1)] if joins else []
    assert learned(detector, candidate, truth) == [sorted([*both, (*found, 1)])]
    for seed in range(8):  # crowds, in which every tenth proposal is rescued
        truth = crowd(seed)
        nearby = detectors.near(truth, 80, seed)
        assert learned(detector, nearby, truth) == learned_by_mmdet(detector, nearby, truth)


def crowd(seed: int) -> BoxLabels:
    """Twelve labels an image, many over others; the second has four fewer."""
    generator = torch.Generator().manual_seed(seed)
    corner, side = (torch.rand(2, 12, 2, generator=generator) * size for size in (60.0, 30.0))
    boxes = torch.cat([corner, corner + side + 10], dim=-1)
    return BoxLabels.pad([boxes[0], boxes[1, :8]], [torch.arange(12) % 8, torch.arange(8)])


def test_groups_run_together_equal_groups_run_alone(detector: Any) -> None:
    pyramid = frcnn.features(detector, detectors.view().images)
    first, second = (detectors.near(detectors.truth(), count, seed=count).boxes for count in (12, 30))
    groups = [(0, first), (1, second[1:]), (0, second)]
    for (row, boxes), (logits, codes) in zip(
        groups, frcnn.roi_forward(detector, pyramid, groups), strict=True
    ):
        here = tuple(level[row : row + len(boxes)] for level in pyramid)
        [(alone, own)] = frcnn.roi_forward(detector, here, [(0, boxes)])
        torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(codes, own, rtol=1e-4, atol=1e-5)


class Calls:
    """How many rois each call of the RoI head got."""

    def __init__(self, detector: Any) -> None:
        self.sizes: list[int] = []
        hook = detector.roi_head.bbox_head.register_forward_pre_hook
        self.handle = hook(lambda module, inputs: self.sizes.append(len(inputs[0])))


def test_boxes_at_most_so_many_at_a_time(detector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradient the outputs are those of one call; with it there is one call."""
    view, boxes = detectors.view(), detectors.near(detectors.truth(), 30).boxes
    pyramid, classes = frcnn.features(detector, view.images), torch.arange(30).expand(2, -1) % 8
    [together] = frcnn.roi_forward(detector, pyramid, [(0, boxes)])
    refined = frcnn.refine_boxes(detector, pyramid, boxes, classes, view.size)
    calls = Calls(detector)
    monkeypatch.setattr(frcnn, "MOST_ROIS", 25)
    [trained] = frcnn.roi_forward(detector, pyramid, [(0, boxes)])
    assert trained[0].requires_grad and calls.sizes == [60]
    with torch.no_grad():
        [parts] = frcnn.roi_forward(detector, pyramid, [(0, boxes)])
        again = frcnn.refine_boxes(detector, pyramid, boxes, classes, view.size)
    calls.handle.remove()
    assert calls.sizes == [60, 25, 25, 10, 24, 24, 12]  # whole slots of both images
    for ours, expected in zip((*parts, again), (*together, refined), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_half_precision_features_leave_the_boxes_where_they_are(detector: Any) -> None:
    """HAZARDS row 6: mmdet's extractor rounds boxes to the features' type, 0.5 px at 100 px in bfloat16."""
    view, boxes = detectors.view(), detectors.near(detectors.truth()).boxes + 0.3
    rounded = [level.bfloat16() for level in frcnn.features(detector, view.images)]
    single = frcnn.class_probabilities(detector, tuple(level.float() for level in rounded), boxes)
    assert frcnn.class_probabilities(detector, tuple(rounded), boxes).equal(single)
    moved = frcnn.class_probabilities(detector, tuple(x.float() for x in rounded), boxes.bfloat16().float())
    assert (moved - single).abs().max() > 1e-3


@torch.no_grad()
def predicted(detector: Any, pyramid: Any, boxes: Tensor) -> list[Any]:
    """mmdet's raw predictions (n, C + 1) and (n, 4 C) for given boxes: no threshold, no NMS."""
    from mmengine.structures import InstanceData

    metas = [sample.metainfo for sample in detectors.samples(detectors.view())]
    given = [InstanceData(bboxes=each) for each in boxes]
    return list(detector.roi_head.predict_bbox(pyramid, metas, given, rcnn_test_cfg=None, rescale=False))


@pytest.mark.parametrize("change", [{}, AGNOSTIC], ids=["a box per class", "one box for all classes"])
@torch.no_grad()
def test_scores_and_refined_boxes_are_mmdets(registered: None, change: Change) -> None:
    detector, view = build(change), detectors.view()
    boxes = detectors.near(detectors.truth(), holes=False).boxes
    classes = torch.randint(8, boxes.shape[:2], generator=torch.Generator().manual_seed(0))
    pyramid = frcnn.features(detector, view.images)
    scores = frcnn.class_probabilities(detector, pyramid, boxes)
    refined = frcnn.refine_boxes(detector, pyramid, boxes, classes, view.size)
    for image, theirs in enumerate(predicted(detector, pyramid, boxes)):
        torch.testing.assert_close(scores[image], theirs.scores, rtol=1e-4, atol=1e-6)
        table = theirs.bboxes.view(len(theirs.scores), -1, 4)
        chosen = table[torch.arange(len(table)), classes[image] if table.shape[1] > 1 else 0]
        torch.testing.assert_close(refined[image], chosen, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("change", [{}, AGNOSTIC], ids=["a box per class", "one box for all classes"])
@torch.no_grad()
def test_spread_of_jittered_boxes_is_mmdets(registered: None, change: Change) -> None:
    """Soft Teacher's jitter from end to end, with the same random numbers, on the second image alone."""
    from mmdet.models.detectors import SoftTeacher

    from ssod.methods.soft_teacher import SoftTeacher as Ours

    detector, view = build(change), detectors.view(detectors.SIZES[1:])
    method = Ours(floor=0.3)
    torch.manual_seed(5)
    labels, pyramid = method.label(detector, view)
    [sample] = detectors.samples(view, labels)
    semi = type(detector.test_cfg)(jitter_times=10, jitter_scale=0.06)
    theirs = SoftTeacher.__new__(SoftTeacher)
    torch.nn.Module.__init__(theirs)
    theirs.teacher, theirs.semi_train_cfg = detector, semi
    torch.manual_seed(5)
    [expected] = theirs.compute_uncertainty_with_aug(pyramid, [sample])
    assert len(expected) > 5 and labels.spread is not None
    torch.testing.assert_close(labels.spread[labels.valid], expected, rtol=1e-3, atol=1e-5)


# ---------------------------------------------------------------- detections


@pytest.mark.parametrize("change", [{}, AGNOSTIC, {"test_cfg.rcnn.max_per_img": 9}], ids=str)
@torch.no_grad()
def test_detections_are_mmdets(registered: None, change: Change) -> None:
    detector, view = build({"test_cfg.rcnn.max_per_img": 1000} | change), detectors.view()
    detector.eval()
    ours, _ = frcnn.detect(detector, view, floor=0.05)
    theirs = detector.predict(view.images, detectors.samples(view), rescale=False)
    for image in range(2):
        assert_same_boxes(ours, image, theirs[image].pred_instances)


@torch.no_grad()
def test_a_floor_inside_nms_is_a_filter_after_it(detector: Any) -> None:
    view = detectors.view()
    low, _ = frcnn.detect(detector, view, floor=0.05)
    high, _ = frcnn.detect(detector, view, floor=0.5)
    filtered = low.score_above(0.5)
    assert 0 < high.valid.sum() < low.valid.sum()
    for image in range(2):
        kept, own = filtered.valid[image], high.valid[image]
        assert low.scores[image, kept].equal(high.scores[image, own])
        assert low.boxes[image, kept].equal(high.boxes[image, own])
        assert low.classes[image, kept].equal(high.classes[image, own])


@torch.no_grad()
def test_detections_of_many_classes_don_t_depend_on_the_batch(registered: None) -> None:
    """80 classes, 6 images: NMS of all at once finds what NMS of each image finds."""
    change = {"roi_head.bbox_head.num_classes": 80, "test_cfg.rcnn.max_per_img": 1000}
    change |= {"test_cfg.rpn.max_per_img": 1000, "test_cfg.rpn.nms_pre": 1000}
    detector, view = build(change), detectors.view(((96, 96),) * 6)
    floor = 0.5
    together, _ = frcnn.detect(detector, view, floor)
    for image in range(6):
        one = slice(image, image + 1)
        alone = replace(view, images=view.images[one], size=view.size[one], padded=view.padded[one])
        expected = detectors.instances(frcnn.detect(detector, alone, floor)[0], 0)
        assert_same_boxes(together, image, expected)


@torch.no_grad()
def test_nothing_above_the_floor(detector: Any) -> None:
    labels, _ = frcnn.detect(detector, detectors.view(), floor=1.0)
    assert labels.valid.shape == (2, 1) and not labels.valid.any()


@torch.no_grad()
def test_a_network_of_nan_proposes_and_detects_nothing(registered: None) -> None:
    detector, view = build(), detectors.view()
    for parameter in detector.parameters():
        parameter.fill_(torch.nan)
    rpn = frcnn.rpn_forward(detector, frcnn.features(detector, view.images))
    assert not frcnn.proposals(detector, rpn, view, detector.test_cfg.rpn).valid.any()
    labels, _ = frcnn.detect(detector, view, floor=0.05)
    assert not labels.valid.any() and labels.boxes.isfinite().all()


# ---------------------------------------------------------------- what is not computed here

MASK = dict(
    type="FCNMaskHead",
    num_convs=1,
    in_channels=64,
    conv_out_channels=8,
    num_classes=8,
    loss_mask=dict(type="CrossEntropyLoss", use_mask=True),
)
INEXACT: list[tuple[str, Change, str]] = [
    # These the stage functions would silently compute in another way than the detector does.
    (
        "sampler",
        {"train_cfg.rcnn.sampler": dict(type="OHEMSampler", num=64, pos_fraction=0.25)},
        "OHEMSampler",
    ),
    (
        "assigner",
        {"train_cfg.rpn.assigner": dict(type="ATSSAssigner", topk=9)},
        "rpn_head trained with ATSSAssigner",
    ),
    ("softmax RPN", {"rpn_head.loss_cls.use_sigmoid": False}, "use_sigmoid"),
    ("soft NMS", {"test_cfg.rcnn.nms": dict(type="soft_nms", iou_threshold=0.5)}, "soft_nms"),
    ("soft NMS of proposals", {"test_cfg.rpn.nms": dict(type="soft_nms", iou_threshold=0.5)}, "soft_nms"),
    (
        "soft NMS of proposals in training",
        {"train_cfg.rpn_proposal.nms": dict(type="soft_nms", iou_threshold=0.5)},
        "soft_nms",
    ),
    (
        "class-agnostic NMS",
        {"test_cfg.rcnn.nms": dict(type="nms", iou_threshold=0.5, class_agnostic=True)},
        "class_agnostic",
    ),
    ("codes that leave the image", {"roi_head.bbox_head.bbox_coder.clip_border": False}, "clip_border"),
    ("a bound of NMS", {"test_cfg.rcnn.nms.max_num": 3}, r"test_cfg\.rcnn\.nms with max_num"),
    ("a bound of NMS of proposals", {"test_cfg.rpn.nms.max_num": 20}, r"test_cfg\.rpn\.nms with max_num"),
    (
        "sigmoid classes",
        {"roi_head.bbox_head.loss_cls": dict(type="FocalLoss", use_sigmoid=True)},
        "loss_cls with use_sigmoid",
    ),
    ("GHM of the RPN", {"rpn_head.loss_cls": dict(type="GHMC", use_sigmoid=True)}, "GHMC"),
    ("GHM of boxes", {"roi_head.bbox_head.loss_bbox": dict(type="GHMR")}, "GHMR"),
    (
        "labels that are repeated",
        {"train_cfg.rcnn.assigner.perm_repeat_gt_cfg": dict(iou_thr=0.9)},
        "perm_repeat_gt_cfg",
    ),
    ("background from an interval", {"train_cfg.rcnn.assigner.neg_iou_thr": (0.1, 0.5)}, "neg_iou_thr"),
    ("one best prior a label", {"train_cfg.rpn.assigner.gt_max_assign_all": False}, "gt_max_assign_all"),
    ("background bound to positives", {"train_cfg.rpn.sampler.neg_pos_ub": 3}, "neg_pos_ub"),
    ("weight of positives", {"train_cfg.rpn.pos_weight": 2.0}, "pos_weight"),
    (
        "a mask branch",
        {
            "roi_head.mask_head": MASK,
            "roi_head.mask_roi_extractor": dict(
                type="SingleRoIExtractor",
                roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=2),
                out_channels=64,
                featmap_strides=[4, 8, 16, 32],
            ),
            "train_cfg.rcnn.mask_size": 28,
        },
        "mask",
    ),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in INEXACT], ids=[row[0] for row in INEXACT])
def test_what_would_be_computed_otherwise_is_found(registered: None, change: Change, message: str) -> None:
    from mmdet.registry import MODELS

    config = detectors.config()
    merge(config, change)
    fault = two_stage_fault(MODELS.build(config))
    assert fault is not None and fault.startswith("detector FasterRCNN has ")
    assert re.search(message, fault) and "\n" not in fault


def test_a_coder_without_the_option_to_clip_is_exact(registered: None) -> None:
    config = detectors.config()
    for head in (config.rpn_head, config.roi_head.bbox_head):
        head.bbox_coder.type = "LegacyDeltaXYWHBBoxCoder"
    assert two_stage_fault(detectors.build(config)) is None


OVERRIDES = [  # part, the method that a subclass has of its own, what is said of it
    ("", "loss", "has a loss function of its own"),
    ("rpn_head", "forward", "has Other in the place of RPNHead"),
    ("roi_head", "bbox_loss", "has Other in the place of StandardRoIHead"),
    ("roi_head.bbox_head", "loss", "has Other with a loss of its own"),
]


@pytest.mark.parametrize(("part", "method", "message"), OVERRIDES)
def test_a_subclass_is_not_taken_for_its_parent(
    registered: None, part: str, method: str, message: str
) -> None:
    detector = detectors.build(detectors.config())
    changed = detector.get_submodule(part)
    changed.__class__ = type("Other", (type(changed),), {method: lambda self: None})
    fault = two_stage_fault(detector)
    assert fault is not None and fault.endswith(message)


def test_the_tiny_detector_is_exact(detector: Any) -> None:
    assert two_stage_fault(detector) is None
