"""Our Soft Teacher against mmdet's: same weights, same views, same sampled boxes, same loss, term by term."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor

CONFIG = Path(__file__).parents[1] / "reference/tiny_faster_rcnn.py"
SIZE = 128  # both views pad to the same size: padding reaches the features through the convolutions
THRESHOLDS = {"floor": 0.3, "rpn": 0.9, "cls": 0.6, "spread": 0.08, "weight": 4.0}


def detector_config() -> dict[str, Any]:
    """The tiny Faster R-CNN with frozen BatchNorm and samplers that take every box there is."""
    config = Config.fromfile(CONFIG).model.detector
    config.backbone.update(norm_eval=True, norm_cfg=dict(type="BN", requires_grad=False))
    for stage in ("rpn", "rcnn"):
        config.train_cfg[stage].sampler.update(num=10**6, pos_fraction=1.0)
    return config


@pytest.fixture
def pair(registered: None) -> tuple[Any, Any]:
    """mmdet's SoftTeacher and ours with the same two networks, opinionated enough to have pseudo boxes."""
    from mmdet.models.detectors import SoftTeacher

    from ssod.registry import MODELS

    torch.manual_seed(1)
    theirs = SoftTeacher(
        detector=detector_config(),
        semi_train_cfg=ConfigDict(
            pseudo_label_initial_score_thr=THRESHOLDS["floor"],
            rpn_pseudo_thr=THRESHOLDS["rpn"],
            cls_pseudo_thr=THRESHOLDS["cls"],
            reg_pseudo_thr=THRESHOLDS["spread"],
            jitter_times=10,
            jitter_scale=0.06,
            min_pseudo_bbox_wh=(1e-2, 1e-2),
            sup_weight=1.0,
            unsup_weight=THRESHOLDS["weight"],
        ),
        semi_test_cfg=ConfigDict(predict_on="teacher"),
        data_preprocessor=dict(
            type="MultiBranchDataPreprocessor", data_preprocessor=dict(type="DetDataPreprocessor")
        ),
    )
    theirs.init_weights()
    for network, noise in ((theirs.student, 1.0), (theirs.teacher, 1.1)):
        head = network.roi_head.bbox_head
        head.fc_cls.weight.data.mul_(60 * noise)
        head.fc_reg.weight.data.mul_(20 * noise)
        network.rpn_head.rpn_cls.weight.data.mul_(20 * noise)
    ours = MODELS.build(
        dict(
            type="SemiDetector",
            detector=detector_config(),
            method=dict(
                type="SoftTeacher",
                unsup_weight=THRESHOLDS["weight"],
                floor=THRESHOLDS["floor"],
                rpn_min_score=THRESHOLDS["rpn"],
                cls_min_score=THRESHOLDS["cls"],
                box_max_spread=THRESHOLDS["spread"],
            ),
            teacher=dict(type="EMATeacher"),
            data_preprocessor=dict(type="SemiPreprocessor", pad_size_divisor=32),
        )
    )
    ours.student.load_state_dict(theirs.student.state_dict())
    ours.teacher.load_state_dict(theirs.teacher.state_dict())
    return theirs.train(), ours.train()


def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both jitters move every box by the same ten offsets, whatever the order of boxes."""
    noise = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))

    def offsets(*shape: Any, device: Any = None, **_: Any) -> Tensor:
        dims = tuple(shape[0]) if len(shape) == 1 else shape
        where = (
            noise[:, None] if len(dims) == 3 else noise[None, :, None]
        )  # mmdet (J, n, 4), ours (B, J, K, 4)
        return where.expand(*dims).to(device)

    monkeypatch.setattr(torch, "randn", offsets)


def homography(generator: np.random.Generator, strong: bool) -> np.ndarray:
    """A view's map from original pixels: scale and flip, for a strong view also rotation and shift."""
    scale = generator.uniform(0.8, 1.2)
    flip = generator.choice([-1.0, 1.0])
    view = np.array([[scale * flip, 0, SIZE * (flip < 0)], [0, scale, 0], [0, 0, 1.0]])
    if strong:
        angle = generator.uniform(-0.4, 0.4)
        turn = np.array([[np.cos(angle), -np.sin(angle), 8], [np.sin(angle), np.cos(angle), -5], [0, 0, 1.0]])
        view = turn @ view
    return view


def samples(count: int, generator: np.random.Generator, strong: bool, boxes: bool) -> list[Any]:
    """Data samples as both preprocessors leave them; float32 homographies, which is what mmdet multiplies."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    made = []
    for _ in range(count):
        sample = DetDataSample()
        shape = (SIZE, SIZE)
        sample.set_metainfo(
            dict(
                img_shape=shape,
                ori_shape=(10**4, 10**4),
                pad_shape=shape,
                batch_input_shape=shape,
                homography_matrix=homography(generator, strong).astype(np.float32),
                scale_factor=(1.0, 1.0),
            )
        )
        corners = torch.from_numpy(generator.uniform(0, SIZE - 40, (3, 2))).float()
        sides = torch.from_numpy(generator.uniform(12, 40, (3, 2))).float()
        count_boxes = 3 if boxes else 0
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corners, corners + sides], dim=1)[:count_boxes],
            labels=torch.from_numpy(generator.integers(0, 6, count_boxes)),
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0))
        made.append(sample)
    return made


def batch(ours: Any) -> tuple[dict[str, Tensor], dict[str, Any], Any]:
    """One batch in mmdet's form (images, data samples) and in ours."""
    from ssod.models.views import SemiBatch, View

    generator = np.random.default_rng(3)
    images = torch.from_numpy(generator.normal(0, 1.5, (6, 3, SIZE // 8, SIZE // 8))).float()
    images = torch.nn.functional.interpolate(images, SIZE, mode="bicubic")
    stacks = {"sup": images[:2], "unsup_teacher": images[2:4], "unsup_student": images[4:]}
    data = {
        "sup": samples(2, generator, strong=False, boxes=True),
        "unsup_teacher": samples(2, generator, strong=False, boxes=False),
        "unsup_student": samples(2, generator, strong=True, boxes=False),
    }
    size = torch.full((2, 2), float(SIZE))
    view = {name: View(images=stack, size=size, padded=size) for name, stack in stacks.items()}
    forward, backward = ours.data_preprocessor._homographies(data["unsup_teacher"], data["unsup_student"])
    semi = SemiBatch(
        labeled=view["sup"],
        truth=ours.data_preprocessor._labels(data["sup"]),
        weak=view["unsup_teacher"],
        strong=view["unsup_student"],
        weak_to_strong=forward,
        strong_to_weak=backward,
    )
    return stacks, data, semi


def test_every_term_equals_mmdets(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair
    stacks, data, semi = batch(ours)
    same_noise(monkeypatch)
    with torch.no_grad():
        expected = theirs.loss(stacks, copy.deepcopy(data))
        got = ours.loss(semi)
    assert got["num_boxes_cls"] >= 1, "the comparison needs pseudo boxes"
    assert 0 < got["num_boxes_box"] < got["num_boxes_candidates"], "and some that jitter refuses"
    assert got["num_boxes_rpn"] < got["num_boxes_cls"], "and different ones for each branch"
    terms = sorted(key for key in expected if "loss" in key)
    assert terms == sorted(key for key in got if "loss" in key)
    for key in terms:
        reference = sum(expected[key]) if isinstance(expected[key], list) else expected[key]
        relative = abs(float(got[key] - reference)) / max(abs(float(reference)), 1e-12)
        print(f"{key}: mmdet {float(reference):.6f} ours {float(got[key]):.6f} relative {relative:.1e}")
        assert relative <= 1e-4, key


def gradient(model: Any, losses: dict[str, Any]) -> Tensor:
    """All of the student's gradients in one vector."""
    total = sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k)
    total.backward()
    return torch.cat([p.grad.flatten() for p in model.student.parameters() if p.grad is not None])


def test_the_gradient_equals_mmdets(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair
    stacks, data, semi = batch(ours)
    same_noise(monkeypatch)
    expected = gradient(theirs, theirs.loss(stacks, copy.deepcopy(data)))
    got = gradient(ours, ours.loss(semi))
    assert (got - expected).norm() / expected.norm() <= 1e-4


@pytest.mark.parametrize("empty", [False, True], ids=["some pseudo boxes", "none"])
def test_every_parameter_learns(pair: tuple[Any, Any], empty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair
    ours.method.floor = 1.1 if empty else THRESHOLDS["floor"]
    losses = ours.loss(batch(ours)[2])
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert (losses["num_boxes_candidates"] == 0) == empty
    gradient(ours, losses)
    without = [n for n, p in ours.student.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(p.grad is None for p in ours.teacher.parameters())


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Callable[[], int]:
    """How often `owner.name` has been called since."""
    calls = []
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    return lambda: len(calls)


def test_the_student_runs_each_part_once(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair
    parts = (ours.student.backbone, ours.student.rpn_head, ours.student.roi_head.bbox_head)
    counts = [count_calls(monkeypatch, part, "forward") for part in parts]
    ours.loss(batch(ours)[2])
    assert [count() for count in counts] == [1, 1, 1]
