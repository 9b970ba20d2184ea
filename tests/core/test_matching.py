"""Assignment and sampling against obvious loops and against mmdet's MaxIoUAssigner and RandomSampler."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import boxes as reference
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssod.core import matching
from ssod.core.labels import BoxLabels
from ssod.core.matching import (
    BACKGROUND,
    UNUSED,
    MatchRule,
    Sample,
    SampleRule,
    assign,
    gather_boxes,
    sample,
)

NUM_PRIORS, NUM_SLOTS, NUM_IMAGES = 50, 6, 40
RULES = {
    "rpn": MatchRule(pos_iou=0.7, neg_iou=0.3, min_pos_iou=0.3, match_low_quality=True),
    "roi": MatchRule(pos_iou=0.5, neg_iou=0.5, min_pos_iou=0.5, match_low_quality=False),
    "a gap, no rescue": MatchRule(pos_iou=0.6, neg_iou=0.2, min_pos_iou=0.3, match_low_quality=False),
    "no gap, rescue": MatchRule(pos_iou=0.5, neg_iou=0.5, min_pos_iou=0.01, match_low_quality=True),
    "bounds crossed": MatchRule(pos_iou=0.3, neg_iou=0.6, min_pos_iou=0.1, match_low_quality=True),
}


def random_case(seed: int) -> tuple[Tensor, Tensor, BoxLabels]:
    """Priors (B, N, 4), which are real (B, N), and labels with holes; padding is NaN.

    Sides are whole pixels in a small image, so overlaps tie; every third image has no label at all.
    """
    generator = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator).float()

    def boxes(count: int) -> Tensor:
        corner = whole(0, 30, NUM_IMAGES, count, 2)
        return torch.cat([corner, corner + whole(2, 14, NUM_IMAGES, count, 2)], dim=-1)

    truth = boxes(NUM_SLOTS)
    truth[::4, 3] = truth[::4, 1]  # two labels in one place
    near = truth.repeat(1, 5, 1) + whole(-2, 3, NUM_IMAGES, 5 * NUM_SLOTS, 4)
    priors = torch.cat([near, boxes(NUM_PRIORS - near.shape[1])], dim=1)
    valid = torch.rand(NUM_IMAGES, NUM_SLOTS, generator=generator) > 0.4
    valid[::3] = False
    real = torch.rand(NUM_IMAGES, NUM_PRIORS, generator=generator) > 0.2
    truth[~valid] = torch.nan
    priors[~real] = torch.nan
    scores = torch.ones(NUM_IMAGES, NUM_SLOTS)
    return priors, real, BoxLabels(truth, torch.zeros(NUM_IMAGES, NUM_SLOTS).long(), scores, valid)


def by_loops(priors: Tensor, truth: Tensor, rule: MatchRule) -> list[int]:
    return reference.assign(
        priors.tolist(), truth.tolist(), rule.pos_iou, rule.neg_iou, rule.min_pos_iou, rule.match_low_quality
    )


def by_mmdet(priors: Tensor, truth: Tensor, rule: MatchRule) -> list[int]:
    from mmdet.models.task_modules.assigners import MaxIoUAssigner
    from mmengine.structures import InstanceData

    assigner = MaxIoUAssigner(
        pos_iou_thr=rule.pos_iou,
        neg_iou_thr=rule.neg_iou,
        min_pos_iou=rule.min_pos_iou,
        match_low_quality=rule.match_low_quality,
    )
    labels = InstanceData(bboxes=truth, labels=torch.zeros(len(truth), dtype=torch.int64))
    found = assigner.assign(InstanceData(priors=priors), labels).gt_inds
    return torch.where(found > 0, found - 1, torch.where(found == 0, BACKGROUND, UNUSED)).tolist()


@pytest.mark.parametrize("name", RULES)
def test_assign_is_mmdets(registered: None, name: str) -> None:
    rule, kinds = RULES[name], set()
    for seed in range(3):
        priors, real, labels = random_case(seed)
        matched = assign(priors, real, labels, rule)
        for image in range(NUM_IMAGES):
            there, slots = real[image], labels.valid[image].nonzero().flatten()
            case = (priors[image, there], labels.boxes[image, slots], rule)
            expected = by_loops(*case)
            assert expected == by_mmdet(*case)
            kinds |= {min(each, 0) for each in expected}
            in_slots = [int(slots[each]) if each >= 0 else each for each in expected]
            assert matched[image, there].tolist() == in_slots
            assert (matched[image, ~there] == UNUSED).all()
    gap = rule.neg_iou < rule.pos_iou
    assert kinds == {0, BACKGROUND} | ({UNUSED} if gap else set())  # the cases show every outcome


@pytest.mark.parametrize("name", RULES)
def test_ignored_boxes_are_no_background(name: str) -> None:
    """Half of the labels ignored instead: matches stay, background near the ignored ones is not used."""
    rule, moved = RULES[name], 0
    for seed in range(3):
        priors, real, labels = random_case(seed)
        band = labels.valid & (torch.arange(NUM_SLOTS) % 2 == 0)
        sure = replace(labels, valid=labels.valid & ~band)
        matched, before = (
            assign(priors, real, replace(sure, ignored=band), rule),
            assign(priors, real, sure, rule),
        )
        for image in range(NUM_IMAGES):
            there = real[image]
            expected = reference.leave_out(
                before[image, there].tolist(),
                priors[image, there].tolist(),
                labels.boxes[image, band[image]].tolist(),
                rule.neg_iou,
            )
            assert matched[image, there].tolist() == expected
        assert matched[~real].eq(UNUSED).all()
        moved += int((matched != before).sum())
        nothing = replace(sure, ignored=torch.zeros_like(band))
        assert assign(priors, real, nothing, rule).equal(before)
    assert moved > 20


def test_ignored_boxes_unlike_mmdets(registered: None) -> None:
    """A small prior inside a large ignored box: mmdet's share of the prior is 1, the IoU is 0.04."""
    from mmdet.models.task_modules.assigners import MaxIoUAssigner
    from mmengine.structures import InstanceData

    priors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 45, 50], [60, 60, 70, 70]])
    boxes = torch.tensor([[0.0, 0, 50, 50], [60, 60, 70, 70]])
    labels = BoxLabels.pad([boxes], [torch.zeros(2).long()])
    labels = replace(labels, valid=torch.tensor([[False, True]]), ignored=torch.tensor([[True, False]]))
    matched = assign(priors, torch.ones(1, 3).bool(), labels, RULES["roi"])
    assert matched.tolist() == [[BACKGROUND, UNUSED, 1]]
    assigner = MaxIoUAssigner(
        pos_iou_thr=0.5, neg_iou_thr=0.5, ignore_iof_thr=0.5, ignore_wrt_candidates=True
    )
    theirs = assigner.assign(
        InstanceData(priors=priors),
        InstanceData(bboxes=boxes[1:], labels=torch.zeros(1).long()),
        InstanceData(bboxes=boxes[:1]),
    )
    assert theirs.gt_inds.tolist() == [-1, -1, 1]


def test_priors_shared_by_all_images() -> None:
    priors, _, labels = random_case(5)
    shared = torch.nan_to_num(priors[0])
    real = torch.ones(NUM_IMAGES, NUM_PRIORS, dtype=torch.bool)
    repeated = assign(shared.expand(NUM_IMAGES, -1, -1), real, labels, RULES["rpn"])
    assert assign(shared, real, labels, RULES["rpn"]).equal(repeated)


def test_a_prior_that_is_best_for_two_labels_goes_to_the_later(registered: None) -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    truth = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8]])
    labels = BoxLabels.pad([truth], [torch.zeros(2).long()])
    matched = assign(priors, torch.ones(1, 2).bool(), labels, RULES["rpn"])
    assert matched.tolist() == [[1, BACKGROUND]] == [by_mmdet(priors, truth, RULES["rpn"])]


def test_a_label_that_touches_no_prior_takes_none(registered: None) -> None:
    """The one difference: with min_pos_iou 0 mmdet gives such a label every prior it does not touch."""
    rule = replace(RULES["rpn"], min_pos_iou=0.0)
    priors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    truth = torch.tensor([[50.0, 50, 60, 60]])
    labels = BoxLabels.pad([truth], [torch.zeros(1).long()])
    matched = assign(priors, torch.ones(1, 2).bool(), labels, rule)
    assert matched.tolist() == [[BACKGROUND, BACKGROUND]]
    assert by_mmdet(priors, truth, rule) == [0, 0]


# ---------------------------------------------------------------- sampling

COUNTS: list[tuple[str, int, int, int, int, float]] = [
    # what it shows, positives, background, unused, num, pos_fraction
    ("plenty of both", 40, 60, 10, 32, 0.25),
    ("few positives: background fills up", 3, 80, 5, 32, 0.5),
    ("few background: positives don't fill up", 60, 4, 5, 32, 0.5),
    ("no positive", 0, 50, 0, 16, 0.25),
    ("no background", 50, 0, 3, 16, 0.25),
    ("neither", 0, 0, 9, 16, 0.25),
    ("fewer priors than num", 5, 6, 2, 64, 0.25),
    ("exhaustive", 20, 30, 4, 10**6, 1.0),
    ("fraction rounds down", 9, 30, 0, 10, 0.39),
    ("only positives", 30, 30, 0, 12, 1.0),
    ("only background", 30, 30, 0, 12, 0.0),
]


def shuffled(positives: int, background: int, unused: int, images: int, seed: int = 0) -> Tensor:
    """Assignments (B, N) with these counts in random order, each positive its own slot."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.cat(
        [torch.arange(positives), torch.full((background,), BACKGROUND), torch.full((unused,), UNUSED)]
    )
    return torch.stack([row[torch.randperm(len(row), generator=generator)] for _ in range(images)])


def check(chosen: Sample, matched: Tensor) -> None:
    """Every used slot is a different prior that may be used, with its own label; positives come first."""
    for image in range(len(matched)):
        used = chosen.used[image]
        index = chosen.index[image, used]
        assert len(index.unique()) == len(index)
        assert chosen.label[image, used].equal(matched[image, index])
        assert (matched[image, index] != UNUSED).all()
        positive = chosen.positive[image].int()
        assert (positive.diff() <= 0).all() and (used.int().diff() <= 0).all()


@pytest.mark.parametrize("row", COUNTS, ids=[row[0] for row in COUNTS])
def test_sample_counts_are_mmdets(registered: None, row: tuple[str, int, int, int, int, float]) -> None:
    from mmdet.models.task_modules.assigners import AssignResult
    from mmdet.models.task_modules.samplers import RandomSampler
    from mmengine.structures import InstanceData

    _, positives, background, unused, num, fraction = row
    matched = shuffled(positives, background, unused, images=4)
    chosen = sample(matched, SampleRule(num, fraction))
    check(chosen, matched)
    assert chosen.index.shape == (4, min(num, matched.shape[1]))
    sampler = RandomSampler(num, fraction, add_gt_as_proposals=False)
    priors, none = torch.zeros(matched.shape[1], 4), torch.zeros(matched.shape[1]).long()
    for image in range(4):
        assignment = AssignResult(
            max(positives, 1), (matched[image] + 1).clamp(min=-1), none.float(), labels=none
        )
        truth = InstanceData(
            bboxes=torch.zeros(max(positives, 1), 4), labels=torch.zeros(max(positives, 1)).long()
        )
        theirs = sampler.sample(assignment, InstanceData(priors=priors), truth)
        ours = chosen.positive[image].sum(), (chosen.used[image] & ~chosen.positive[image]).sum()
        assert [int(each) for each in ours] == [len(theirs.pos_inds), len(theirs.neg_inds)]


def test_every_image_of_a_batch_is_sampled_by_its_own_counts() -> None:
    matched = torch.cat([shuffled(30, 5, 5, 1), shuffled(1, 39, 0, 1), shuffled(0, 0, 40, 1)])
    chosen = sample(matched, SampleRule(16, 0.25))
    check(chosen, matched)
    assert chosen.positive.sum(dim=1).tolist() == [4, 1, 0]
    assert chosen.used.sum(dim=1).tolist() == [9, 16, 0]


def test_sampling_is_uniform() -> None:
    """Every positive and every background prior is drawn equally often, and in pairs independently."""
    torch.manual_seed(0)
    images, positives, background = 20000, 8, 12
    row = shuffled(positives, background, 3, 1)
    matched = row.expand(images, -1)
    chosen = sample(matched, SampleRule(8, 0.25))
    drawn = torch.zeros(matched.shape).scatter_add_(1, chosen.index, chosen.used.float())
    share = torch.where(row[0] >= 0, 2 / positives, torch.where(row[0] == BACKGROUND, 6 / background, 0.0))
    deviation = (share * (1 - share) / images).sqrt()
    assert ((drawn.mean(dim=0) - share).abs() <= 4 * deviation).all()
    pair = drawn[:, row[0] >= 0]
    together = (pair.T @ pair / images)[~torch.eye(positives, dtype=torch.bool)]
    expected = 2 / positives * 1 / (positives - 1)
    assert ((together - expected).abs() < 4 * (expected / images) ** 0.5).all()


def test_gather_boxes_shared_and_per_image() -> None:
    boxes, index = torch.rand(2, 5, 4), torch.tensor([[4, 0, 0], [1, 2, 3]])
    expected = torch.stack([boxes[0, [4, 0, 0]], boxes[1, [1, 2, 3]]])
    assert gather_boxes(boxes, index).equal(expected)
    assert gather_boxes(boxes[0], index).equal(boxes[0][index])


RULE_CHANGES: list[tuple[str, dict[str, Any], list[int]]] = [
    # priors overlap the label by 0.8, 0.6, 0.4, 0.1; then the same label again, matched by nothing
    ("as it is", {}, [0, UNUSED, UNUSED, BACKGROUND]),
    ("pos_iou", dict(pos_iou=0.6), [0, 0, UNUSED, BACKGROUND]),
    ("neg_iou", dict(neg_iou=0.5), [0, UNUSED, BACKGROUND, BACKGROUND]),
    ("nothing reaches pos_iou", dict(pos_iou=0.9), [UNUSED, UNUSED, UNUSED, BACKGROUND]),
    ("the best is rescued", dict(pos_iou=0.9, match_low_quality=True), [0, UNUSED, UNUSED, BACKGROUND]),
    (
        "unless below min_pos_iou",
        dict(pos_iou=0.9, match_low_quality=True, min_pos_iou=0.85),
        [UNUSED] * 3 + [-1],
    ),
]


@pytest.mark.parametrize(
    ("change", "expected"), [r[1:] for r in RULE_CHANGES], ids=[r[0] for r in RULE_CHANGES]
)
def test_every_bound_of_a_rule_does_something(change: dict[str, Any], expected: list[int]) -> None:
    rule = replace(MatchRule(pos_iou=0.7, neg_iou=0.3, min_pos_iou=0.0, match_low_quality=False), **change)
    priors = torch.tensor([[0.0, 0, width, 10] for width in (8, 6, 4, 1)])
    labels = BoxLabels.pad([torch.tensor([[0.0, 0, 10, 10]])], [torch.tensor([3])])
    assert assign(priors, torch.ones(1, 4).bool(), labels, rule).tolist() == [expected]


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that operators of a block return."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            self.elements = max(self.elements, each.numel())
        return result


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("with_ignored", [False, True], ids=["", "ignored"])
def test_labels_at_most_so_many_at_a_time(
    name: str, with_ignored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties between labels of different parts included; no tensor is larger than the bound allows."""
    priors, real, labels = random_case(3)
    if with_ignored:
        band = torch.rand(labels.valid.shape, generator=torch.Generator().manual_seed(1)) < 0.3
        labels = replace(labels, valid=labels.valid & ~band, ignored=band & labels.valid)
    together = assign(priors, real, labels, RULES[name])
    shared = assign(priors[0].nan_to_num(), real, labels, RULES[name])
    with Largest() as before:
        assign(priors[:1], real[:1], first_images(labels, 1), RULES[name])
    assert before.elements == NUM_SLOTS * NUM_PRIORS
    for images in (1, 3, NUM_IMAGES - 1):  # several at a time, and one that is left over
        monkeypatch.setattr(matching, "MOST_PAIRS", images * NUM_SLOTS * NUM_PRIORS + 1)
        assert assign(priors, real, labels, RULES[name]).equal(together)
        assert assign(priors[0].nan_to_num(), real, labels, RULES[name]).equal(shared)
    for rows in (1, 2, 4):
        monkeypatch.setattr(matching, "MOST_PAIRS", rows * NUM_PRIORS + 1)
        assert assign(priors, real, labels, RULES[name]).equal(together)
        with Largest() as after:
            assign(priors[:1], real[:1], first_images(labels, 1), RULES[name])
        assert after.elements == max(rows, 4) * NUM_PRIORS  # 4: the priors' own coordinates


def first_images(labels: BoxLabels, count: int) -> BoxLabels:
    """The labels of the first images."""
    names = ("boxes", "classes", "scores", "valid", "ignored")
    values = {name: getattr(labels, name) for name in names}
    return replace(labels, **{name: None if each is None else each[:count] for name, each in values.items()})
