"""5, 10 and 20 % of BCCD's 205 training images, three draws each, a fifth of the schedule."""

_base_ = "./_base_/percent_fold.py"

data = "bccd_10"
iterations = 300
