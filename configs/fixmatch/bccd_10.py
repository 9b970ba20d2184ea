"""FixMatch on BCCD; all but the method is Soft Teacher's."""

_base_ = "../soft_teacher/bccd_10.py"

model = dict(
    method=dict(
        _delete_=True,
        type="FixMatch",
        # The paper's weight, after Soft Teacher's steps on labels alone: a random head finds nothing.
        unsup_weight=dict(value=1.0, start=_base_.model.method.unsup_weight.start),
        # 0.7, Soft Teacher's here; the paper's 0.95 is for classification.
        min_score=_base_.model.method.cls_min_score,
    )
)
