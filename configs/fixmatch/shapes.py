"""FixMatch on drawn shapes; all but the method is Soft Teacher's."""

_base_ = "../soft_teacher/shapes.py"

model = dict(
    method=dict(
        _delete_=True,
        type="FixMatch",
        # The paper's weight, after Soft Teacher's steps on labels alone: random weights find nothing.
        unsup_weight=dict(value=1.0, start=_base_.model.method.unsup_weight.start),
        # Soft Teacher's bound, where the paper has 0.95: this young detector is seldom so sure.
        min_score=_base_.model.method.cls_min_score,
    )
)
