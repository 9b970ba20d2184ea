"""The reliability of background on drawn shapes."""

_base_ = ["./_base_/reliability.py", "./_base_/shapes.py"]
