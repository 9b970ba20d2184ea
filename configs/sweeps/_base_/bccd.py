"""Sweeps on BCCD, 10 % labeled: a fifth of the schedule, minutes a run on two CPU cores."""

data = "bccd_10"
iterations = 300
