"""Supervised on 1 % of COCO, the published baseline, 10.0 AP."""

_base_ = "./coco_10.py"

train_dataloader = dict(dataset=dict(ann_file="semi_anns/instances_train2017.1@1.json"))
