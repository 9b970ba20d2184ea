"""Supervised on 20 labeled BCCD images: the twin that the methods are compared with."""

_base_ = [
    "../_base_/models/faster_rcnn_mobilenet_v2.py",
    "../_base_/datasets/bccd_10.py",
    "../_base_/schedules/bccd.py",
    "../_base_/runtime/default.py",
]

model = dict(detector=dict(roi_head=dict(bbox_head=dict(num_classes=3))))
train_dataloader = dict(
    batch_size=4,
    sampler=dict(counts=(4,)),
    dataset=dict(_delete_=True, **_base_._labeled),
)
