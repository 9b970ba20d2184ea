"""Detectors as mmdet's own: the same features from renamed weights, a clear no where there is no equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from reference import detectors, small_detectors

from ssod.engine.config import read_config
from ssod.errors import UserError
from ssod.models import plain

pytestmark = pytest.mark.usefixtures("registered")
OUTPUTS = (3, 6, 13, 17)
SHIPPED = sorted(Path(__file__).parents[2].glob("configs/*/shapes.py"))


def wrapped(
    model: str = "mobilenet_v2", out_indices: tuple[int, ...] = OUTPUTS, **more: Any
) -> dict[str, Any]:
    return dict(type="TorchvisionBackbone", model=model, out_indices=out_indices, **more)


def with_backbone(backbone: dict[str, Any], in_channels: list[int]) -> dict[str, Any]:
    detector = detectors.config().to_dict()
    detector["backbone"] = backbone
    detector["neck"].update(in_channels=in_channels, num_outs=len(in_channels))
    return {"detector": detector, "data_preprocessor": {"type": "SemiPreprocessor", "mean": [0.0] * 3,
            "std": [1.0] * 3, "pad_to": (96, 64), "pad_size_divisor": 32}}  # fmt: skip


def built(model: dict[str, Any]) -> Any:
    """Our network of such a config, its norms with statistics of their own."""
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict

    torch.manual_seed(0)
    network = MODELS.build(ConfigDict(model["detector"])).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return network


@pytest.mark.parametrize(
    ("out_indices", "channels", "theirs"),
    [(OUTPUTS, [24, 32, 96, 320], (1, 2, 4, 6)), ((1, 10, 18), [16, 64, 1280], (0, 3, 7))],
    ids=str,
)
def test_mobilenet_has_the_same_features_to_the_bit(
    out_indices: tuple[int, ...], channels: list[int], theirs: tuple[int, ...]
) -> None:
    model = with_backbone(wrapped(out_indices=out_indices), channels)
    network = built(model)
    config, _ = plain.plain_model(model)
    assert config["backbone"]["type"] == "MobileNetV2" and config["backbone"]["out_indices"] == theirs
    detector = plain.build_plain(config)
    weights = plain.plain_weights(detector, network)
    assert detector.load_state_dict(weights).missing_keys == []
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        pairs = zip(network.extract_feat(images), detector.extract_feat(images), strict=True)
    for ours, other in pairs:
        assert torch.equal(ours, other) and ours.std() > 0.01
    unused = [key for key in weights if key.startswith("backbone.conv2")]
    assert all(weights[key].any() == (18 in out_indices) for key in unused if "num_batches" not in key)


@pytest.mark.parametrize(
    ("frozen", "stages"), [(0, -1), (1, 0), (2, 1), (6, 2), (7, 3), (17, 6), (18, 7)], ids=str
)
def test_what_was_frozen_stays_frozen(frozen: int, stages: int) -> None:
    """In mmdet's stages; a stage that was frozen in part trains."""
    config, _ = plain.plain_model(with_backbone(wrapped(frozen_blocks=frozen), [24, 32, 96, 320]))
    assert config["backbone"]["frozen_stages"] == stages
    assert config["backbone"]["norm_eval"] and not config["backbone"]["norm_cfg"]["requires_grad"]


@pytest.mark.parametrize("name", sorted(small_detectors.DETECTORS))
def test_every_detector_predicts_to_the_bit_as_mmdets(name: str) -> None:
    """Teacher and student of a SemiDetector, folded and in another memory layout before."""
    from ssod.registry import MODELS

    torch.manual_seed(0)
    config = {"detector": small_detectors.config(name).to_dict(), "teacher": {"type": "EMATeacher"},
              "data_preprocessor": {"type": "SemiPreprocessor"}}  # fmt: skip
    model = MODELS.build({"type": "SemiDetector", **config}).eval()
    model.init_weights()  # parts of DINO are bare memory before
    plain.compute_as_mmdet(model)
    for which in ("teacher", "student"):
        made, _ = plain.plain_model(config)
        detector = plain.build_plain(made)
        weights = plain.plain_weights(detector, model.network(which))
        detector.load_state_dict(weights)
        look = detectors.view(((64, 96),))
        with torch.no_grad():
            pairs = [
                each.predict(look.images, detectors.samples(look))[0].pred_instances
                for each in (model.network(which), detector)
            ]
        assert len(pairs[0]) == len(pairs[1]) > 0
        for key in ("bboxes", "scores", "labels"):
            assert torch.equal(pairs[0][key], pairs[1][key]) and pairs[0][key].isfinite().all()
        own = {key: value for key, value in weights.items() if value.is_floating_point()}
        assert all(value.is_contiguous() for value in own.values())
        assert not any(
            value.data_ptr() == other.data_ptr()
            for value, other in zip(own.values(), model.network(which).parameters(), strict=False)
        )
    assert not made.get("roi_head", {}).get("mask_head")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_the_detector_of_every_shipped_method_is_one_of_mmdets(path: Path) -> None:
    made, notes = plain.plain_model(read_config(path).model)
    names = plain.build_plain(made).state_dict().keys()
    assert any(name.startswith("roi_head.bbox_head.fc_cls") for name in names)
    assert len(notes) == (path.parent.name == "unbiased_teacher")


def test_no_box_depends_on_the_loss_that_is_replaced() -> None:
    """The released focal loss of Unbiased Teacher: the same weights give the same boxes to the bit."""
    from mmdet.registry import MODELS

    config = {"detector": detectors.config().to_dict(), "data_preprocessor": {"type": "SemiPreprocessor"}}
    head = config["detector"]["roi_head"]["bbox_head"]
    head["loss_cls"] = dict(type="ssod.SoftmaxFocalLoss", gamma=1.5, loss_weight=2.0)
    torch.manual_seed(0)
    network = MODELS.build(ConfigDict(config["detector"])).eval()
    detectors.enliven(network)
    made, [note] = plain.plain_model(config)
    assert made["roi_head"]["bbox_head"]["loss_cls"] == dict(type="CrossEntropyLoss", use_sigmoid=False)
    assert head["loss_cls"]["loss_weight"] == 2.0, "the config that was given stays"
    assert "CrossEntropyLoss in its place; boxes are the same" in note
    detector = plain.build_plain(made)
    detector.load_state_dict(plain.plain_weights(detector, network))
    look = detectors.view(((64, 96),))
    with torch.no_grad():
        ours, theirs = (
            each.predict(look.images, detectors.samples(look))[0].pred_instances
            for each in (network, detector)
        )
    assert len(ours) == len(theirs) > 0
    assert all(torch.equal(ours[key], theirs[key]) for key in ("bboxes", "scores", "labels"))


def test_the_preprocessor_and_pretrained_weights() -> None:
    model = with_backbone(detectors.config().backbone.to_dict(), [64, 128, 256])
    model["detector"]["backbone"]["init_cfg"] = {"type": "Pretrained", "checkpoint": "nowhere.pth"}
    made, notes = plain.plain_model(model)
    assert notes == []
    assert made["data_preprocessor"] == {"type": "DetDataPreprocessor", "mean": [0.0] * 3, "std": [1.0] * 3,
                                         "pad_size_divisor": 32}  # fmt: skip
    assert made["backbone"]["init_cfg"] is None and "init_cfg" in model["detector"]["backbone"]
    assert "nowhere" in str(model) and "nowhere" not in str(made), "the config that was given stays"


def refused(**changes: Any) -> dict[str, Any]:
    model = with_backbone(wrapped(), [24, 32, 96, 320])
    model["detector"].update(changes.pop("detector", {}))
    return model | changes


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"detector": {"backbone": wrapped("vgg16", (4, 9))}},
        "model='vgg16' is torchvision's and exists in ssod",
    ),
    ({"detector": {"backbone": wrapped(out_indices=(3, 5))}}, "out_indices has 5, a block within a stage"),
    (
        {"detector": {"backbone": {"type": "ssod.Other"}}},
        r"model.detector.backbone.type='ssod.Other' is a part",
    ),
    ({"detector": {"neck": {"type": "SemiDetector"}}}, r"model.detector.neck.type='SemiDetector' is a part"),
    ({"data_preprocessor": {"type": "MyOwn"}}, "data_preprocessor.type='MyOwn' has no equal in mmdet"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=[row[1][:30] for row in REFUSED])
def test_what_mmdet_lacks_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        plain.plain_model(refused(**changes))
    assert "\n" not in str(caught.value)


def test_a_part_of_the_users_own_is_refused_by_name() -> None:
    from mmdet.models.necks import FPN
    from mmdet.registry import MODELS

    class OwnNeck(FPN):
        """Registered with mmdet, as mmdet's users do."""

    MODELS.register_module(module=OwnNeck, force=True)
    model = with_backbone(detectors.config().backbone.to_dict(), [64, 128, 256])
    model["detector"]["neck"]["type"] = "OwnNeck"
    with pytest.raises(UserError, match=r"detector part neck is .*OwnNeck, which plain mmdet can't build"):
        plain.build_plain(plain.plain_model(model)[0])
