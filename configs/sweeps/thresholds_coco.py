"""The score that supervises on 10 % of COCO."""

_base_ = ["./_base_/thresholds.py", "./_base_/coco.py"]
