"""The score above which a box supervises Soft Teacher's RPN and classifier; published: 0.9."""

axes = dict(seed=[0], threshold=[0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
configs = dict(soft_teacher="../soft_teacher/{data}.py")
supervised = "../supervised/{data}.py"
options = dict(threshold=["model.method.rpn_min_score", "model.method.cls_min_score"])
