"""Supervised on the labeled shapes alone: the twin that the methods are compared with."""

_base_ = [
    "../_base_/models/faster_rcnn_tiny.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/shapes.py",
    "../_base_/runtime/default.py",
]

train_dataloader = dict(
    batch_size=8, sampler=dict(counts=(8,)), dataset=dict(_delete_=True, **_base_._labeled)
)
