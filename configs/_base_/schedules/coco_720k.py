"""The full-COCO schedule of Soft Teacher: four times as long as the partial-label one."""

_base_ = "./coco_180k.py"

train_cfg = dict(max_iters=720_000)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type="MultiStepLR",
        by_epoch=False,
        begin=0,
        end=720_000,
        milestones=[480_000, 640_000],
        gamma=0.1,
    ),
]
