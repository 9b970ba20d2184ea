"""Unlabeled images a labeled one on BCCD."""

_base_ = ["./_base_/unlabeled_ratio.py", "./_base_/bccd.py"]
