"""How sure one is of background: the indicators that Soft Teacher's section 3.2 compares, and none."""

axes = dict(
    seed=[0],
    reliability=[
        "none",
        "teacher_background",
        "student_background",
        "score_difference",
        "iou",
        "reverse_iou",
    ],
)
configs = dict(soft_teacher="../soft_teacher/{data}.py")
supervised = "../supervised/{data}.py"
options = dict(reliability="model.method.reliability")
