"""Box jittering on 10 % of COCO."""

_base_ = ["./_base_/jitter.py", "./_base_/coco.py"]
