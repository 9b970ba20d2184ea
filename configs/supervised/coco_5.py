"""Supervised on 5 % of COCO, the published baseline, 20.92 AP."""

_base_ = "./coco_10.py"

train_dataloader = dict(dataset=dict(ann_file="semi_anns/instances_train2017.1@5.json"))
