"""Supervised on all of COCO train2017, two images on each of eight GPUs: the published baseline, 40.9 AP."""

_base_ = [
    "../_base_/models/faster_rcnn_r50_fpn.py",
    "../_base_/datasets/coco_semi.py",
    "../_base_/schedules/coco_720k.py",
    "../_base_/runtime/default.py",
]

model = dict(teacher=None)  # the published baseline has no averaged copy
optim_wrapper = dict(optimizer=dict(lr=0.02))  # the released code's, for 8 x 2 labeled images
train_dataloader = dict(
    batch_size=2,
    sampler=dict(counts=(2,)),
    dataset=dict(_delete_=True, **{**_base_._labeled, "ann_file": "annotations/instances_train2017.json"}),
)
