"""BCCD on two CPU cores: 1,500 iterations of SGD, two drops of the rate."""

written_for = dict(world_size=1)  # processes; `--scale-to` scales from there
train_cfg = dict(type="SemiTrainLoop", max_iters=1500, val_interval=300)
val_cfg = dict(type="SemiValLoop")
optim_wrapper = dict(
    type="GuardedOptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=1500, milestones=[1000, 1350], gamma=0.1),
]
