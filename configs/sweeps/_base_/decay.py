"""The decay of the teacher's average. Published for 180,000 iterations: 0.999; here for some hundred."""

axes = dict(seed=[0], decay=[0.9, 0.97, 0.99, 0.997, 0.999])
configs = dict(soft_teacher="../soft_teacher/{data}.py")
supervised = "../supervised/{data}.py"
options = dict(decay="model.teacher.decay")
