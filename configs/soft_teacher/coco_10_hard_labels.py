"""The rung "E2E + EMA" of the paper's ladder on 10 % of COCO: 31.2 AP."""

_base_ = "./coco_10_no_jitter.py"

model = dict(method=dict(reliability="none"))
