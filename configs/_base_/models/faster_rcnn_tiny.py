"""A Faster R-CNN small enough to train from scratch on two CPU cores: ResNet-18 at half width, 4 levels.

What is not here is the COCO detector's (faster_rcnn_r50_fpn.py).
"""

_base_ = "./faster_rcnn_r50_fpn.py"
_channels = 48
_strides = [4, 8, 16, 32]

model = dict(
    detector=dict(
        backbone=dict(
            _delete_=True,
            type="ResNet",
            depth=18,
            base_channels=32,
            num_stages=4,
            out_indices=(0, 1, 2, 3),
            frozen_stages=-1,
            norm_cfg=dict(type="BN", requires_grad=True),
            norm_eval=False,
            style="pytorch",
        ),
        neck=dict(
            in_channels=[32, 64, 128, 256],
            out_channels=_channels,
            num_outs=4,
            norm_cfg=dict(type="BN", requires_grad=True),
        ),
        rpn_head=dict(
            in_channels=_channels,
            feat_channels=_channels,
            anchor_generator=dict(scales=[4], ratios=[1.0], strides=_strides),
        ),
        roi_head=dict(
            bbox_roi_extractor=dict(
                roi_layer=dict(sampling_ratio=2),
                out_channels=_channels,
                featmap_strides=_strides,
                # Boxes below 112 px, nearly all, are cut from stride 4: an outline must be seen to be told.
                finest_scale=56,
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
    teacher=dict(type="EMATeacher", decay=0.99),  # published: 0.999; 1,800 steps have no time for that
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
)
