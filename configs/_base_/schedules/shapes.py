"""Drawn shapes from random weights on two CPU cores: 1,800 iterations of AdamW, flat, then a cosine."""

written_for = dict(world_size=1)  # processes; `--scale-to` scales from there
train_cfg = dict(type="SemiTrainLoop", max_iters=1800, val_interval=300)
val_cfg = dict(type="SemiValLoop")
optim_wrapper = dict(
    type="GuardedOptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.02, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=1200, end=1800, T_max=600, eta_min_ratio=0.02),
]
