"""Soft Teacher's ladder on drawn shapes, cut to a third of the schedule."""

_base_ = "./_base_/ladder.py"

data = "shapes"
iterations = 600
