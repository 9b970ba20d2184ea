"""The published shares of COCO on their five folds, from the files that tools/split_data.py writes."""

_base_ = ["./_base_/percent_fold.py", "./_base_/coco.py"]

axes = dict(percent=[1, 2, 5, 10], fold=[1, 2, 3, 4, 5])
splits = dict(files="semi_anns/instances_train2017.{fold}@{percent}")
