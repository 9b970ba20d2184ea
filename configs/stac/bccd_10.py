"""STAC on BCCD: a teacher on 20 labeled images, its boxes on the other 185, a student on all."""

_base_ = [
    "../_base_/models/faster_rcnn_mobilenet_v2.py",
    "../_base_/datasets/bccd_10.py",
    "../_base_/schedules/bccd.py",
    "../_base_/runtime/default.py",
]
from ssod.data.pipelines import pseudo_labeled

model = dict(
    detector=dict(roi_head=dict(bbox_head=dict(num_classes=3))),
    method=dict(type="STAC"),  # published: λ_u 2, τ 0.9
    teacher=None,
)
stages = dict(teacher=dict(), rounds=1)  # the teacher trains as long as the student
train_dataloader = dict(dataset=dict(datasets=[_base_._labeled, pseudo_labeled(_base_._unlabeled)]))
