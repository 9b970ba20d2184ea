"""Unlabeled images a labeled one on 10 % of COCO, where a process has one labeled image."""

_base_ = ["./_base_/unlabeled_ratio.py", "./_base_/coco.py"]

axes = dict(unlabeled_ratio=[1, 2, 4, 8])
