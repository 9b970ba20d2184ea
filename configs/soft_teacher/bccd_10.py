"""Soft Teacher on BCCD: 20 labeled and 185 unlabeled images, 4 + 4 a batch."""

_base_ = [
    "../_base_/models/faster_rcnn_mobilenet_v2.py",
    "../_base_/datasets/bccd_10.py",
    "../_base_/schedules/bccd.py",
    "../_base_/runtime/default.py",
]

model = dict(
    detector=dict(roi_head=dict(bbox_head=dict(num_classes=3))),
    method=dict(
        type="SoftTeacher",
        # Published: 2 at 1:1, as here, from the first step. A run this much shorter can't wait for a random
        # head to pass 0.9: 300 steps go to the labeled images alone. With 2 the student fell 5 AP behind its
        # twin (docs/log.md). Bounds are the published ones.
        unsup_weight=dict(value=1.0, start=300),
    ),
)
