"""STAC on 10 % of COCO, Faster R-CNN R50-FPN, eight GPUs: 28.64 AP in the paper.

Published and kept: 180,000 iterations for teacher and student, steps at 120,000 and 160,000, rate 0.01, one
labeled and one unlabeled image a GPU, λ_u 2, τ 0.9. Where the released code differs, the house's common parts
are taken, so that only the method differs from the other configs here: shorter sides of 500 to 800 (here 400
to 1200), warm-up of 1,000 iterations from a third of the rate (500 from a thousandth), 512 boxes an image in
the second stage for the teacher and 1,024 for the student (512 for both), float32 (float16), another space of
colour operations, and half of all losses (the sum of both parts is divided by 2; here it is not). An image
whose scores are all below τ keeps its best box there; here it is left out.
"""

_base_ = [
    "../_base_/models/faster_rcnn_r50_fpn.py",
    "../_base_/datasets/coco_semi.py",
    "../_base_/schedules/coco_180k.py",
    "../_base_/runtime/default.py",
]
from ssod.data.pipelines import pseudo_labeled

model = dict(method=dict(type="STAC"), teacher=None)
stages = dict(teacher=dict(), rounds=1)
train_dataloader = dict(
    batch_size=2,
    sampler=dict(counts=(1, 1)),
    dataset=dict(datasets=[_base_._labeled, pseudo_labeled(_base_._unlabeled)]),
)
