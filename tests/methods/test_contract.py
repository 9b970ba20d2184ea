"""What every method promises, whatever its idea: one row for each method, the same tests for all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from reference import detectors
from reference.lively_methods import METHODS
from torch import Tensor

from ssod.models.student import supervised_losses
from ssod.models.views import SemiBatch

EMA = dict(type="EMATeacher")
every_method = pytest.mark.parametrize("name", METHODS)


def model_of(name: str, weight: float = 1.0, **options: Any) -> Any:
    """A SemiDetector with the method, its student and its teacher not the same."""
    method = dict(type=name.split(",")[0], unsup_weight=weight, **METHODS[name])
    return detectors.semi_detector(method, EMA, **options)


def batch_of() -> SemiBatch:
    """Two labeled and two unlabeled images, with offline labels for a method that takes those."""
    batch = detectors.semi_batch()
    return replace(batch, strong_labels=detectors.truth(of=batch.strong, seed=4))


def without_labels(model: Any) -> SemiBatch:
    """The batch, and both networks call every box background: nothing is a pseudo label."""
    for network in (model.student, model.teacher):
        network.roi_head.bbox_head.fc_cls.bias.data[-1] += 100
    batch = batch_of()
    offline = batch.strong_labels.where(torch.zeros_like(batch.strong_labels.valid))
    return replace(batch, strong_labels=offline)


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for key, value in losses.items() if "loss" in key]).sum()


def untrained(model: Any) -> list[str]:
    """The student's trainable parameters that a backward pass left without gradient."""
    return [
        name for name, each in model.student.named_parameters() if each.requires_grad and each.grad is None
    ]


def test_every_method_has_a_row(registered: None) -> None:
    from ssod.registry import METHODS as REGISTRY

    ours = {name for name, each in REGISTRY.module_dict.items() if each.__module__.startswith("ssod.")}
    assert ours == {name.split(",")[0] for name in METHODS}


@every_method
def test_losses_are_finite_and_every_parameter_learns(registered: None, name: str) -> None:
    model = model_of(name)
    losses = model.loss(batch_of())
    assert all(value.isfinite().all() for value in losses.values()), losses
    assert any(key.startswith("unsup_loss") and value > 0 for key, value in losses.items())
    assert all(value.shape == () for value in losses.values())
    total(losses).backward()
    assert untrained(model) == []
    assert all(each.grad.isfinite().all() for each in model.student.parameters() if each.grad is not None)


@every_method
def test_without_any_pseudo_label(registered: None, name: str) -> None:
    """The same keys as ever, all finite, every parameter with a gradient."""
    model = model_of(name)
    keys = list(model.loss(batch_of()))
    losses = model.loss(without_labels(model))
    assert list(losses) == keys
    assert all(value.isfinite().all() for value in losses.values()), losses
    total(losses).backward()
    assert untrained(model) == []


@every_method
def test_the_teacher_is_untouched_and_in_eval(registered: None, name: str) -> None:
    """With trainable BatchNorm; the student's modes stay, too."""
    model = model_of(name, trainable_norm=True).train()
    before = {key: each.clone() for key, each in model.teacher.state_dict().items()}
    modes = [each.training for each in model.student.modules()]
    total(model.loss(batch_of())).backward()
    assert not any(each.training for each in model.teacher.modules())
    assert all(each.equal(before[key]) for key, each in model.teacher.state_dict().items())
    assert all(each.grad is None for each in model.teacher.parameters())
    assert [each.training for each in model.student.modules()] == modes


@every_method
def test_weight_0_is_exactly_supervised(registered: None, name: str) -> None:
    """In the detector bit by bit; in the method the unsupervised losses are 0 and the others the twin's."""
    model, batch = model_of(name, weight=0.0), batch_of()
    torch.manual_seed(0)
    losses = model.loss(batch)
    torch.manual_seed(0)
    expected = {f"sup_{key}": value for key, value in supervised_losses(model.student, batch).items()}
    assert losses.keys() == expected.keys()
    assert all(losses[key].equal(expected[key]) for key in expected)
    direct = model.method.losses(model.student, model.teacher, batch, 0.0)
    for key, value in direct.items():
        if key.startswith("sup_"):
            torch.testing.assert_close(value, expected[key], msg=key)
        elif "loss" in key:
            assert value == 0, key


@every_method
def test_weight_is_a_factor(registered: None, name: str) -> None:
    model, batch = model_of(name), batch_of()
    losses = []
    for weight in (1.0, 2.5):
        torch.manual_seed(0)
        losses.append(model.method.losses(model.student, model.teacher, batch, weight))
    for key, value in losses[0].items():
        factor = 2.5 if key.startswith("unsup_loss") else 1.0
        torch.testing.assert_close(losses[1][key], value * factor, msg=key)


@every_method
def test_bfloat16(registered: None, name: str) -> None:
    """Under autocast: losses within 3 % of the step's total; each parameter gets a gradient."""
    model, batch = model_of(name), batch_of()
    torch.manual_seed(0)
    exact = model.loss(batch)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(batch)
    assert all(value.isfinite().all() for value in losses.values()), losses
    assert all(value.dtype == torch.float32 for key, value in losses.items() if "loss" in key)
    for key, value in exact.items():
        if "loss" in key:
            apart = (losses[key] - value).abs().item()
            assert apart <= 0.03 * total(exact).item(), f"{key} is {apart} apart"
    total(losses).backward()
    assert untrained(model) == []


# ---------------------------------------------------------------- hidden truth


def written(root: Path, annotations: Any) -> Path:
    """A data set of 2 labeled and 2 unlabeled images, the unlabeled ones with these annotations."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "images" / f"{number}.png"), cv2.resize(coarse, (128, 96)))
    categories = [dict(id=each, name=f"c{each}") for each in range(detectors.NUM_CLASSES)]
    images = [dict(id=each, file_name=f"{each}.png", width=128, height=96) for each in range(4)]
    box = dict(bbox=[20, 10, 40, 30], area=1200, iscrowd=0)
    truth = [dict(box, id=each, image_id=each, category_id=each) for each in range(2)]
    files = {"labeled": (images[:2], truth), "unlabeled": (images[2:], annotations)}
    for name, (shown, boxes) in files.items():
        content = dict(images=shown, annotations=boxes, categories=categories)
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


def loaded(root: Path) -> dict[str, Any]:
    """A collated batch of all images, as the loader hands it to the model."""
    from ssod.data.datasets import LabeledCoco, UnlabeledCoco
    from ssod.data.pipelines import labeled, strong, two_views, weak
    from ssod.registry import FUNCTIONS

    init_default_scope("ssod")
    scale, place = (128, 96), dict(data_root=str(root), data_prefix=dict(img="images"))
    names = tuple(f"c{each}" for each in range(detectors.NUM_CLASSES))
    place["metainfo"] = dict(classes=names)
    known = LabeledCoco(ann_file="labeled.json", pipeline=labeled(scale), **place)
    views = two_views(weak(scale), strong(scale))
    unknown = UnlabeledCoco(ann_file="unlabeled.json", pipeline=views, **place)
    np.random.seed(0)
    return dict(FUNCTIONS.get("collate_views")([known[0], known[1], unknown[0], unknown[1]]))


TRUE_BOXES = [
    dict(id=each, image_id=each, category_id=1, bbox=[5, 5, 50, 50], area=2500, iscrowd=0) for each in (2, 3)
]
GARBAGE = [{"image_id": "nobody", "bbox": [float("nan")], "category_id": -7}, 3, None]


@every_method
def test_true_boxes_of_unlabeled_images_are_out_of_reach(registered: None, name: str, tmp_path: Path) -> None:
    """Every loss is the same bit by bit, whether their annotations are true, garbage or none."""
    from ssod.registry import MODELS

    model, losses = model_of(name), []
    preprocessor = MODELS.build(dict(type="SemiPreprocessor", mean=[120] * 3, std=[60] * 3))
    for kind, boxes in (("true", TRUE_BOXES), ("garbage", GARBAGE), ("none", [])):
        batch = preprocessor(loaded(written(tmp_path / kind, boxes)), True)["inputs"]
        assert batch.strong_labels is None
        batch = replace(batch, strong_labels=detectors.truth(of=batch.strong))
        torch.manual_seed(0)
        losses.append(model.loss(batch))
    for other in losses[1:]:
        assert other.keys() == losses[0].keys()
        assert all(other[key].equal(value) for key, value in losses[0].items())
