"""The reliability of background on BCCD."""

_base_ = ["./_base_/reliability.py", "./_base_/bccd.py"]
