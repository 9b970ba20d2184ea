"""Soft Teacher on 10 % of COCO, Faster R-CNN R50-FPN, eight GPUs: the published recipe.

34.04 AP in the paper, 33.8 in mmdet. What is not named here is the published value and SoftTeacher's default.
The teacher's decay grows towards 0.999 in the first 1,000 steps as in the released code; mmdet's is constant.
The teacher is what is tested, as in mmdet; the released config tests the student.
"""

_base_ = [
    "../_base_/models/faster_rcnn_r50_fpn.py",
    "../_base_/datasets/coco_semi.py",
    "../_base_/schedules/coco_180k.py",
    "../_base_/runtime/default.py",
]

model = dict(method=dict(type="SoftTeacher", unsup_weight=4.0))
