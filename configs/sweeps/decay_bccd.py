"""The teacher's decay on BCCD."""

_base_ = ["./_base_/decay.py", "./_base_/bccd.py"]
