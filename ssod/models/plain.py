"""A detector as mmdet alone knows it: its config without parts of ours, its weights under mmdet's names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..errors import UserError
from ..registry import MODELS
from .folding import unfold_norms
from .supported import without_masks

WRAPPED = "TorchvisionBackbone"
# The blocks of torchvision's MobileNetV2 that end a stage of mmdet's: the stem, seven layers, the last conv.
_STAGE_ENDS = (0, 1, 3, 6, 10, 13, 16, 17, 18)
_KNOWN_PACKAGES = ("mmdet", "mmcv", "mmengine", "torch", "torchvision")
_SOFTMAX_LOSS = "SoftmaxFocalLoss"
_LOSS_NOTE = (
    f"{_SOFTMAX_LOSS} is ssod's: the config has CrossEntropyLoss in its place; boxes are the same, further "
    "training is not"
)


def plain_model(model: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The config of mmdet's own detector that computes what the networks of a SemiDetector's config do.

    And a line for each part that differs in training alone. Raises UserError for a part that exists in ssod
    alone and has no equal in mmdet.
    """
    detector: dict[str, Any] = without_masks(ConfigDict(model["detector"])).to_dict()
    backbone = detector.get("backbone") or {}
    if _bare(backbone.get("type")) == WRAPPED:
        detector["backbone"] = _mobilenet(backbone)
    given, detector = detector, _with_mmdets_loss(detector)
    for where, kind in _types(detector, "model.detector"):
        scope, _, name = str(kind).rpartition(".")
        if scope == "ssod" or (not scope and name in MODELS.module_dict):
            raise UserError(f"{where}={kind!r} is a part of ssod that mmdet does not have: train with one of "
                            "mmdet's own to export, or predict with tools/predict.py")  # fmt: skip
    preprocessor = dict(model.get("data_preprocessor") or {"type": "DetDataPreprocessor"})
    if _bare(preprocessor["type"]) not in ("SemiPreprocessor", "DetDataPreprocessor"):
        raise UserError(f"model.data_preprocessor.type={preprocessor['type']!r} has no equal in mmdet: "
                        "only SemiPreprocessor can be exported")  # fmt: skip
    preprocessor.pop("pad_to", None)  # of training batches alone
    preprocessor["type"] = "DetDataPreprocessor"
    notes = [] if detector == given else [_LOSS_NOTE]
    return {**_without_pretraining(detector), "data_preprocessor": preprocessor}, notes


def build_plain(config: Mapping[str, Any]) -> Any:
    """mmdet's detector of such a config, from mmdet's own classes; UserError where others are in it."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MMDET_MODELS.build(ConfigDict(config)).eval()
    for name, module in detector.named_modules():
        kind = type(module)
        if kind.__module__.split(".")[0] not in _KNOWN_PACKAGES:
            raise UserError(
                f"detector part {name} is {kind.__module__}.{kind.__name__}, which plain mmdet can't build: "
                "train with one of mmdet's own to export, or predict with tools/predict.py"
            )
    return detector


def plain_weights(plain: nn.Module, network: nn.Module) -> OrderedDict[str, Tensor]:
    """The weights of a network of ours, a copy on the host, under the names that `plain` has for them.

    Only a wrapped backbone has others. What mmdet's has beyond its last output, which nothing reads, is 0.
    """
    theirs, ours = plain.state_dict(), network.state_dict()
    names = {key: key for key in ours}
    wrapped = type(getattr(network, "backbone", None)).__name__ == WRAPPED
    if wrapped:  # both list convolutions and norms in the order in which they run
        own, other = ([key for key in keys if key.startswith("backbone.")] for keys in (ours, theirs))
        names |= dict(zip(own, other, strict=False))
    found = {names[key]: value for key, value in ours.items()}
    faults = [key for key, value in found.items() if key not in theirs or theirs[key].shape != value.shape]
    faults += [key for key in theirs.keys() - found.keys() if not (wrapped and key.startswith("backbone."))]
    if faults:
        raise UserError(f"the detector can't be exported: mmdet's own differs in {faults[0]}")
    unused = {key: torch.zeros_like(value) for key, value in theirs.items() if key not in found}
    everything = found | unused
    return OrderedDict((key, everything[key].to("cpu", copy=True).contiguous()) for key in theirs)


def _mobilenet(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """mmdet's MobileNetV2 in the place of torchvision's: the same layers under other names."""
    if backbone["model"] != "mobilenet_v2":
        raise UserError(
            f"backbone {WRAPPED} with model={backbone['model']!r} is torchvision's and exists in ssod alone; "
            "of these only mobilenet_v2 has an equal in mmdet: train with one of mmdet's backbones to export"
        )
    inner = [block for block in backbone["out_indices"] if block not in _STAGE_ENDS[1:]]
    if inner:
        raise UserError(
            f"backbone {WRAPPED}: out_indices has {inner[0]}, a block within a stage; mmdet's MobileNetV2 "
            f"gives the ends of its stages only: {', '.join(map(str, _STAGE_ENDS[1:]))}"
        )
    frozen = backbone.get("frozen_blocks", 0)
    norm_eval = backbone.get("norm_eval", True)
    return dict(
        type="MobileNetV2",
        out_indices=tuple(_STAGE_ENDS.index(block) - 1 for block in backbone["out_indices"]),
        frozen_stages=max((i for i, end in enumerate(_STAGE_ENDS[:-1]) if end < frozen), default=-1),
        norm_cfg=dict(type="BN", requires_grad=not norm_eval),
        norm_eval=norm_eval,
    )


def _bare(kind: Any) -> str:
    return str(kind).rpartition(".")[2]


def _types(part: Any, where: str) -> list[tuple[str, Any]]:
    """Every `type` below a config and where it stands."""
    if isinstance(part, Mapping):
        own = [(f"{where}.type", part["type"])] if "type" in part else []
        return own + [each for key, value in part.items() for each in _types(value, f"{where}.{key}")]
    if isinstance(part, (list, tuple)):
        return [each for i, value in enumerate(part) for each in _types(value, f"{where}.{i}")]
    return []


def _with_mmdets_loss(part: Any) -> Any:
    """The config with mmdet's softmax loss in the place of ours, on which no box depends."""
    if isinstance(part, Mapping):
        if _bare(part.get("type")) == _SOFTMAX_LOSS:
            return {"type": "CrossEntropyLoss", "use_sigmoid": False}
        return {key: _with_mmdets_loss(value) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return type(part)(_with_mmdets_loss(each) for each in part)
    return part


def _without_pretraining(part: Any) -> Any:
    """The config without places of pretrained weights: the exported ones take theirs."""
    if isinstance(part, Mapping):
        kept = {key: _without_pretraining(value) for key, value in part.items()}
        if isinstance(kept.get("init_cfg"), Mapping) and kept["init_cfg"].get("type") == "Pretrained":
            kept["init_cfg"] = None
        return kept
    if isinstance(part, (list, tuple)):
        return type(part)(_without_pretraining(each) for each in part)
    return part


def compute_as_mmdet(model: nn.Module) -> None:
    """Has a model's networks predict to the bit as mmdet's own: folded norms and memory layout go.

    Both are ours for speed and move results by rounding: boxes by up to a few thousandths of a pixel.
    """
    unfold_norms(model)
    model.to(memory_format=torch.contiguous_format)
