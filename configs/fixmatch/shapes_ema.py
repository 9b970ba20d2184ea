"""End to end + EMA on drawn shapes, a rung of Soft Teacher's ablation: FixMatch with the teacher's labels."""

_base_ = "./shapes.py"

model = dict(method=dict(labeler="teacher"))
