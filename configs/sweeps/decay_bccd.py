"""The teacher's decay on BCCD, three seeds each."""

_base_ = ["./_base_/decay.py", "./_base_/bccd.py"]

axes = dict(seed=[0, 1, 2])
