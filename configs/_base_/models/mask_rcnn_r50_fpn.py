"""Mask R-CNN R50-FPN at COCO's size, boxes only: mmdet 3.x's `mask-rcnn_r50-caffe_fpn_1x_coco.py`.

Without its mask branch: views carry boxes, so nothing could train it (docs/detectors.md).
What is left is Faster R-CNN with one setting of its own.
"""

_base_ = "./faster_rcnn_r50_fpn.py"

model = dict(
    detector=dict(
        type="MaskRCNN",
        # The best proposals of a label go to it even where they overlap another label more.
        train_cfg=dict(rcnn=dict(assigner=dict(match_low_quality=True))),
    )
)
