"""Soft Teacher on drawn shapes: the first thing to run."""

_base_ = [
    "../_base_/models/faster_rcnn_tiny.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/shapes.py",
    "../_base_/runtime/default.py",
]

model = dict(
    method=dict(
        type="SoftTeacher",
        unsup_weight=dict(value=2.0, start=500),
        rpn_min_score=0.7,
        cls_min_score=0.7,
        box_max_spread=0.05,
    ),
)
