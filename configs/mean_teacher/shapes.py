"""Mean Teacher on drawn shapes; all but the method is Soft Teacher's."""

_base_ = "../soft_teacher/shapes.py"

model = dict(
    method=dict(
        _delete_=True,
        type="MeanTeacher",
        # The default of 10 for 7 classes with background, not tuned; the ramp over a fifth of the schedule.
        unsup_weight=dict(value=10.0, length=_base_.train_cfg.max_iters // 5, shape="sigmoid"),
    )
)
