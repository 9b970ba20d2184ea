"""Unlabeled images a labeled one on drawn shapes."""

_base_ = ["./_base_/unlabeled_ratio.py", "./_base_/shapes.py"]
