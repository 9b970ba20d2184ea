"""The reliability of background on 10 % of COCO."""

_base_ = ["./_base_/reliability.py", "./_base_/coco.py"]
