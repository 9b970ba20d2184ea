"""The score that supervises on BCCD."""

_base_ = ["./_base_/thresholds.py", "./_base_/bccd.py"]
