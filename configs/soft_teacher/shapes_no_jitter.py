"""The rung "+ soft teacher" of the ladder on drawn shapes: boxes are selected by score, not by jitter."""

_base_ = "./shapes.py"

model = dict(method=dict(box_selection="score"))
