"""A few hundred labeled images on one GPU: 10,000 iterations of SGD, two drops of the rate.

Not a measured recipe. It keeps the proportions of bccd.py, whose results are in docs/results.md, and COCO's
0.01 for 8 x (1 + 4) images scaled to one GPU.
"""

written_for = dict(world_size=1)  # processes; `--scale-to` scales from there
train_cfg = dict(type="SemiTrainLoop", max_iters=10_000, val_interval=1_000)
val_cfg = dict(type="SemiValLoop")
optim_wrapper = dict(
    type="GuardedOptimWrapper",
    optimizer=dict(type="SGD", lr=0.00125, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=10_000, milestones=[7_000, 9_000], gamma=0.1),
]
