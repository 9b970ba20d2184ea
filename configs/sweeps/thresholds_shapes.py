"""The score that supervises on drawn shapes."""

_base_ = ["./_base_/thresholds.py", "./_base_/shapes.py"]
