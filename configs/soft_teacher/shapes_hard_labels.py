"""The rung "E2E + EMA" of the paper's ladder on drawn shapes: hard labels, background weighs 1."""

_base_ = "./shapes_no_jitter.py"

model = dict(method=dict(reliability="none"))
