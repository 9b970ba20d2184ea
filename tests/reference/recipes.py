"""A small config written for 8 x (1 + 4) images, with all that `--scale-to` scales, and no dataset."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config


def small(**changes: Any) -> Config:
    """The config, parts of it replaced."""
    parts = dict(
        model=dict(
            teacher=dict(type="EMATeacher", decay=0.9),
            method=dict(type="SoftTeacher", unsup_weight=dict(value=2.0, start=10, length=30)),
        ),
        train_dataloader=dict(batch_size=5, sampler=dict(type="LabeledUnlabeledSampler", counts=(1, 4))),
        train_cfg=dict(type="SemiTrainLoop", max_iters=800, val_interval=100),
        optim_wrapper=dict(type="GuardedOptimWrapper", optimizer=dict(type="SGD", lr=0.01, momentum=0.9)),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=80),
            dict(type="MultiStepLR", by_epoch=False, begin=0, end=800, milestones=[400, 600], gamma=0.1),
        ],
        default_hooks=dict(checkpoint=dict(type="Checkpoints", interval=50)),
        written_for=dict(world_size=8),
    )
    return Config({**parts, **changes})
