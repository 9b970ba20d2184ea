"""Small detectors of many kinds, each from mmdet's own config: narrow layers, no pretrained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CHANNELS = [8, 16, 32, 64]  # the stages of a ResNet-18 an eighth as wide
BACKBONE = {"depth": 18, "base_channels": 8, "frozen_stages": -1, "init_cfg": None}
PYRAMID = {"in_channels": CHANNELS, "out_channels": 16}
DENSE_HEAD = {"in_channels": 16, "feat_channels": 16}
BOX_HEAD = {"in_channels": 16, "fc_out_channels": 32}
ROI_HEAD = {"bbox_roi_extractor": {"out_channels": 16}, "bbox_head": BOX_HEAD}
MASK_HEAD = {"in_channels": 16, "conv_out_channels": 16, "num_convs": 1}
RPN_HEAD = {"in_channels": 16, "feat_channels": 16}
GROUPS = {"type": "GN", "num_groups": 4}
ALL_BOXES = {"score_thr": 0.0, "max_per_img": 10}  # untrained scores are low
SHORT_DETR = {
    "num_layers": 1,
    "layer_cfg": {
        "self_attn_cfg": {"embed_dims": 32},
        "cross_attn_cfg": {"embed_dims": 32},
        "ffn_cfg": {"embed_dims": 32, "feedforward_channels": 32},
    },
}
SHORT_ENCODER = {
    "num_layers": 1,
    "layer_cfg": {key: SHORT_DETR["layer_cfg"][key] for key in ("self_attn_cfg", "ffn_cfg")},
}

# mmdet's own config and what makes it small
DETECTORS: dict[str, tuple[str, dict[str, Any]]] = {
    "faster_rcnn": (
        "_base_/models/faster-rcnn_r50_fpn.py",
        {
            "neck": PYRAMID,
            "rpn_head": RPN_HEAD,
            "roi_head": ROI_HEAD,
            "test_cfg": {"rcnn": ALL_BOXES},
        },
    ),
    "mask_rcnn": (
        "_base_/models/mask-rcnn_r50_fpn.py",
        {
            "neck": PYRAMID,
            "rpn_head": RPN_HEAD,
            "roi_head": {
                **ROI_HEAD,
                "mask_roi_extractor": {"out_channels": 16},
                "mask_head": MASK_HEAD,
            },
            "test_cfg": {"rcnn": ALL_BOXES},
        },
    ),
    "cascade_rcnn": (
        "_base_/models/cascade-rcnn_r50_fpn.py",
        {
            "neck": PYRAMID,
            "rpn_head": RPN_HEAD,
            "roi_head": {**ROI_HEAD, "bbox_head": {str(stage): BOX_HEAD for stage in range(3)}},
            "test_cfg": {"rcnn": ALL_BOXES},
        },
    ),
    "retinanet": (
        "_base_/models/retinanet_r50_fpn.py",
        {
            "neck": PYRAMID,
            "bbox_head": {**DENSE_HEAD, "stacked_convs": 1},
            "test_cfg": ALL_BOXES,
        },
    ),
    "fcos": (
        "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
        {
            "neck": PYRAMID,
            "bbox_head": {**DENSE_HEAD, "stacked_convs": 1, "norm_cfg": GROUPS},
            "test_cfg": ALL_BOXES,
        },
    ),
    "dino": (
        "dino/dino-4scale_r50_8xb2-12e_coco.py",
        {
            "num_queries": 20,
            "neck": {
                "in_channels": CHANNELS[1:],
                "out_channels": 32,
                "norm_cfg": GROUPS,
            },
            "encoder": SHORT_ENCODER,
            "decoder": SHORT_DETR,
            "positional_encoding": {"num_feats": 16},
            "bbox_head": {"embed_dims": 32},
            "test_cfg": {"max_per_img": 20},
        },
    ),
}


def config(name: str, num_classes: int = 3) -> Any:
    """The detector's config of that name in DETECTORS."""
    import mmdet
    from mmengine.config import Config

    file, changes = DETECTORS[name]
    config = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / "configs" / file)
    config.merge_from_dict({"model": {"backbone": BACKBONE, **changes}})
    for head in _heads(config.model):
        head.num_classes = num_classes
    return config.model


def _heads(model: Any) -> list[Any]:
    """The configs of all heads that tell classes apart."""
    parts = [model.get("bbox_head")]
    if "roi_head" in model:
        parts = [model.roi_head.bbox_head, model.roi_head.get("mask_head")]
    flat = [each for part in parts for each in (part if isinstance(part, list) else [part])]
    return [each for each in flat if each]


def build(name: str, num_classes: int = 3) -> Any:
    """The plain mmdet detector, initialised as mmdet does."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        torch.manual_seed(0)
        detector = MODELS.build(config(name, num_classes))
        detector.init_weights()
    return detector
