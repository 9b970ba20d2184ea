"""STAC on drawn shapes: a teacher on 50 labeled images, its boxes on the other 950, a student on all."""

_base_ = [
    "../_base_/models/faster_rcnn_tiny.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/shapes.py",
    "../_base_/runtime/default.py",
]
from ssod.data.pipelines import pseudo_labeled

model = dict(method=dict(type="STAC"), teacher=None)  # published: λ_u 2, τ 0.9, no average
# Three stages, each in its folder of the work dir. `teacher` holds what differs in the first one, such as
# dict(train_cfg=dict(max_iters=...)): nothing, it trains as long as the student. rounds=2 would label again
# with the student and train another one.
stages = dict(teacher=dict(), rounds=1)
train_dataloader = dict(dataset=dict(datasets=[_base_._labeled, pseudo_labeled(_base_._unlabeled)]))
