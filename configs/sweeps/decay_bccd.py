"""The teacher's decay on BCCD, three seeds each.

In 300 iterations 0.997 and 0.999 are the same: the ramp of the average ends at 0.9967.
"""

_base_ = ["./_base_/decay.py", "./_base_/bccd.py"]

axes = dict(seed=[0, 1, 2])
