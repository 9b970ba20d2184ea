"""Faster R-CNN on an ImageNet-pretrained MobileNetV2, small enough to fine-tune on two CPU cores.

Weights: `mobilenet_v2_imagenet.pth` in the folder SSOD_WEIGHTS_ROOT, or in `weights/`. What is not here is
the COCO detector's (faster_rcnn_r50_fpn.py).
"""

_base_ = "./faster_rcnn_r50_fpn.py"
import os

_weights_root = os.environ.get("SSOD_WEIGHTS_ROOT", "weights")
_channels = 64
_strides = [4, 8, 16, 32]

model = dict(
    detector=dict(
        backbone=dict(
            _delete_=True,
            type="TorchvisionBackbone",
            model="mobilenet_v2",
            weights=f"{_weights_root}/mobilenet_v2_imagenet.pth",
            out_indices=(3, 6, 13, 17),  # strides 4, 8, 16, 32
            frozen_blocks=7,  # strides 2 to 8: the dear part of the backward pass
            norm_eval=True,  # batch statistics cost these weights 24 points of ImageNet accuracy
        ),
        neck=dict(
            in_channels=[24, 32, 96, 320],
            out_channels=_channels,
            num_outs=4,
            # The four outputs differ in scale (standard deviations of about 2 to 8): a norm evens them out.
            # GroupNorm, because its result doesn't depend on which views share the student's pass.
            norm_cfg=dict(type="GN", num_groups=8, requires_grad=True),
        ),
        rpn_head=dict(
            in_channels=_channels,
            feat_channels=_channels,
            anchor_generator=dict(scales=[5], strides=_strides),  # 20, 40, 80 and 160 px
        ),
        roi_head=dict(
            bbox_roi_extractor=dict(
                roi_layer=dict(sampling_ratio=2),  # 0 (adaptive) takes more samples of large boxes
                out_channels=_channels,
                featmap_strides=_strides,
                finest_scale=28,  # images are about half of COCO's size
            ),
            bbox_head=dict(in_channels=_channels, fc_out_channels=256),
        ),
        train_cfg=dict(
            rpn=dict(sampler=dict(num=128)),
            rpn_proposal=dict(nms_pre=500, max_per_img=300),
            rcnn=dict(sampler=dict(num=64)),
        ),
        test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=150), rcnn=dict(max_per_img=60)),
    ),
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
)
