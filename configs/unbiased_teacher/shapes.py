"""Unbiased Teacher on drawn shapes; all but the method and its class loss is Soft Teacher's."""

_base_ = "../soft_teacher/shapes.py"

model = dict(
    detector=dict(
        roi_head=dict(bbox_head=dict(loss_cls=dict(_delete_=True, type="SoftmaxFocalLoss", gamma=1.5)))
    ),
    method=dict(
        _delete_=True,
        type="UnbiasedTeacher",
        # Published: 4 after 2,000 of 180,000 steps. Soft Teacher's weight and burn-in for this short run.
        unsup_weight=_base_.model.method.unsup_weight,
        min_score=0.7,
    ),
)
