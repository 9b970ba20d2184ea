"""Sweeps on drawn shapes: a third of the schedule, minutes a run on two CPU cores."""

data = "shapes"
iterations = 600
