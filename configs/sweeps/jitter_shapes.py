"""Box jittering on drawn shapes."""

_base_ = ["./_base_/jitter.py", "./_base_/shapes.py"]
