"""Supervised on 2 % of COCO, for which no baseline was published."""

_base_ = "./coco_10.py"

train_dataloader = dict(dataset=dict(ann_file="semi_anns/instances_train2017.1@2.json"))
