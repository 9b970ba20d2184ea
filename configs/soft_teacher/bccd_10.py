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
        # head: 300 steps go to the labeled images alone. With 2 the student fell 5 AP behind its twin.
        unsup_weight=dict(value=1.0, start=300),
        # Published: 0.9. There the teacher finds 30 % of the platelets, at 0.7 half of them, 92 % of which
        # are right (docs/log.md); what is missed is background for the RPN.
        rpn_min_score=0.7,
        cls_min_score=0.7,
    ),
)
