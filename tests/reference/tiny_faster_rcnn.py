"""The detector of the tests: small, without BatchNorm outside the backbone, and not tuned for anything.

Apart from configs/, so that a change of an experiment doesn't move what the tests compare.
"""

_base_ = "../../configs/_base_/models/faster_rcnn_r50_fpn.py"
_channels = 64
_strides = [8, 16, 32]

model = dict(
    detector=dict(
        backbone=dict(
            _delete_=True,
            type="ResNet",
            depth=18,
            base_channels=32,
            num_stages=4,
            out_indices=(1, 2, 3),
            frozen_stages=-1,
            norm_cfg=dict(type="BN", requires_grad=True),
            norm_eval=False,
            style="pytorch",
        ),
        neck=dict(in_channels=[64, 128, 256], out_channels=_channels, num_outs=3),
        rpn_head=dict(
            in_channels=_channels,
            feat_channels=_channels,
            anchor_generator=dict(scales=[2, 3], ratios=[0.7, 1.4], strides=_strides),
        ),
        roi_head=dict(
            bbox_roi_extractor=dict(
                roi_layer=dict(sampling_ratio=1),
                out_channels=_channels,
                featmap_strides=_strides,
                finest_scale=32,
            ),
            bbox_head=dict(in_channels=_channels, fc_out_channels=256, num_classes=6),
        ),
        train_cfg=dict(
            rpn=dict(sampler=dict(num=128)),
            rpn_proposal=dict(nms_pre=500, max_per_img=300),
            rcnn=dict(sampler=dict(num=64)),
        ),
        test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=50)),
    ),
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
)
