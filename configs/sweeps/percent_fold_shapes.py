"""2, 5 and 10 % of the 1,000 drawn images, three draws each."""

_base_ = ["./_base_/percent_fold.py", "./_base_/shapes.py"]

axes = dict(percent=[2, 5, 10])
splits = dict(protocol="own", annotations="annotations/train.json")  # the configs' own file has 50 images
