"""FixMatch on BCCD; all but the method is Soft Teacher's."""

_base_ = "../soft_teacher/bccd_10.py"

model = dict(
    method=dict(
        _delete_=True,
        type="FixMatch",
        # The paper's weight, after Soft Teacher's steps on labels alone: a random head finds nothing.
        unsup_weight=dict(value=1.0, start=_base_.model.method.unsup_weight.start),
        min_score=0.9,  # Soft Teacher's published bound; the paper's 0.95 is for classification
    )
)
