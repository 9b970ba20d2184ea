"""The partial-label schedule of Soft Teacher on COCO: 180,000 iterations on eight GPUs, float16.

The same in the released code and in mmdet's config, but for these: the released code trains in float16 (here,
too), mmdet's config in float32 unless `--amp` is given; evaluation every 4,000 there, every 5,000 in mmdet.
Neither clips gradients.
"""

# The processes that rate and schedule are written for, 8 GPUs in the released code and the paper. How many
# images each has, the samplers say. `--scale-to` scales from there.
written_for = dict(world_size=8)
train_cfg = dict(type="SemiTrainLoop", max_iters=180_000, val_interval=5_000)
val_cfg = dict(type="SemiValLoop")
optim_wrapper = dict(
    type="GuardedOptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4),
    precision="float16",
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type="MultiStepLR",
        by_epoch=False,
        begin=0,
        end=180_000,
        milestones=[120_000, 160_000],
        gamma=0.1,
    ),
]
