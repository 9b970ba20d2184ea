"""5, 10 and 20 % of BCCD's 205 training images, three draws each."""

_base_ = ["./_base_/percent_fold.py", "./_base_/bccd.py"]

axes = dict(method=["fixmatch", "mean_teacher", "soft_teacher"])
splits = dict(protocol="own")  # drawn of the labeled dataset's file, without replacement
