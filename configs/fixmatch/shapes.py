"""FixMatch on drawn shapes; all but the method is Soft Teacher's."""

_base_ = "../soft_teacher/shapes.py"

model = dict(
    method=dict(
        _delete_=True,
        type="FixMatch",
        # The paper's weight, after Soft Teacher's steps on labels alone: random weights find nothing.
        unsup_weight=dict(value=1.0, start=_base_.model.method.unsup_weight.start),
        # The default of 0.9, Soft Teacher's, where the paper has 0.95: this young detector is seldom so sure.
    )
)
