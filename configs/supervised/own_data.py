"""Supervised on the labeled part of your own images: the twin of `soft_teacher/own_data.py`."""

_base_ = [
    "../_base_/models/faster_rcnn_r50_fpn.py",
    "../_base_/datasets/folder.py",
    "../_base_/schedules/own_data.py",
    "../_base_/runtime/default.py",
]

model = dict(teacher=None, detector=dict(roi_head=dict(bbox_head=dict(num_classes=len(_base_.classes)))))
train_dataloader = dict(
    batch_size=1, sampler=dict(counts=(1,)), dataset=dict(_delete_=True, **_base_._labeled)
)
