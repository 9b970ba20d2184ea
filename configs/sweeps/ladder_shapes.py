"""Soft Teacher's ladder on drawn shapes."""

_base_ = ["./_base_/ladder.py", "./_base_/shapes.py"]
