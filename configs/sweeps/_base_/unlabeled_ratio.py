"""Unlabeled images for each labeled one in a batch; the weight of their loss stays. Published: 4, and 1."""

axes = dict(seed=[0], unlabeled_ratio=[0.5, 1, 2, 4])
configs = dict(soft_teacher="../soft_teacher/{data}.py")
supervised = "../supervised/{data}.py"
