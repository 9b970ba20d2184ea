"""FCOS on 10 % of COCO, one image on each of eight GPUs: the twin of the hard-label methods on it.

No baseline was published for this detector on this schedule.
"""

_base_ = [
    "../_base_/models/fcos_r50_fpn.py",
    "../_base_/datasets/coco_semi.py",
    "../_base_/schedules/coco_180k.py",
    "../_base_/runtime/default.py",
]

model = dict(teacher=None)  # as in the other supervised baselines
optim_wrapper = dict(
    optimizer=dict(lr=0.005),  # mmdet's 0.01 is for 16 images a step; here are 8
    # mmdet trains FCOS with twice the rate on biases, and clips.
    paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=35, norm_type=2),
)
train_dataloader = dict(
    batch_size=1, sampler=dict(counts=(1,)), dataset=dict(_delete_=True, **_base_._labeled)
)
