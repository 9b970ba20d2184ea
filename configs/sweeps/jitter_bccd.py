"""Box jittering on BCCD."""

_base_ = ["./_base_/jitter.py", "./_base_/bccd.py"]
