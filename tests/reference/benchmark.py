"""A config small enough to benchmark in a test: the tiny Faster R-CNN with frozen BatchNorm, drawn images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from . import detectors

SIZE = (128, 96)  # width, height that the tests ask for


def config(method: dict[str, Any] | None = None, supervised: bool = False) -> dict[str, Any]:
    """A Soft Teacher's config unless another method, or none, is given; without images: use `drawn`."""
    from ssod.data.pipelines import labeled, strong, two_views, weak

    scale = [(128, 96), (160, 96)]
    common = dict(data_root="nowhere", data_prefix=dict(img=""), metainfo=dict(classes=("a", "b")))
    sources = [
        dict(type="LabeledCoco", ann_file="a.json", pipeline=labeled(scale=scale), **common),
        dict(
            type="UnlabeledCoco",
            ann_file="b.json",
            pipeline=two_views(weak(scale=scale), strong(scale=scale)),
            **common,
        ),
    ]
    return dict(
        default_scope="ssod",
        model=dict(
            type="SemiDetector",
            detector=detectors.config(exhaustive=False),
            method=None if supervised else method or dict(type="SoftTeacher", unsup_weight=4.0),
            teacher=dict(type="EMATeacher"),
            data_preprocessor=dict(
                type="SemiPreprocessor",
                mean=[127.0] * 3,
                std=[60.0] * 3,
                bgr_to_rgb=True,
                pad_size_divisor=32,
            ),
        ),
        train_dataloader=dict(
            batch_size=5,
            num_workers=0,
            sampler=dict(type="LabeledUnlabeledSampler", counts=(1, 4)),
            collate_fn=dict(type="ssod.collate_views"),
            dataset=sources[0] if supervised else dict(type="ConcatDataset", datasets=sources),
        ),
        train_cfg=dict(type="SemiTrainLoop", max_iters=1000),
        optim_wrapper=dict(
            optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4),
            clip_grad=dict(max_norm=10.0),
        ),
    )


def write(path: Path, **given: Any) -> str:
    """The config as a file."""
    Config(config(**given)).dump(path)
    return str(path)
