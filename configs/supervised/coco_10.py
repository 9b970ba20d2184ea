"""Supervised on 10 % of COCO, one image on each of eight GPUs: the published baseline, 26.94 AP."""

_base_ = [
    "../_base_/models/faster_rcnn_r50_fpn.py",
    "../_base_/datasets/coco_semi.py",
    "../_base_/schedules/coco_180k.py",
    "../_base_/runtime/default.py",
]

model = dict(teacher=None)  # the published baseline has no averaged copy
train_dataloader = dict(
    batch_size=1, sampler=dict(counts=(1,)), dataset=dict(_delete_=True, **_base_._labeled)
)
