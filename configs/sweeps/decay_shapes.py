"""The teacher's decay on drawn shapes."""

_base_ = ["./_base_/decay.py", "./_base_/shapes.py"]
