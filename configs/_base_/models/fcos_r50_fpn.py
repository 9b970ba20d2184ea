"""FCOS R50-FPN at COCO's size: mmdet 3.x's `fcos_r50-caffe_fpn_gn-head_1x_coco.py`."""

_base_ = "./faster_rcnn_r50_fpn.py"

_detector = dict(
    type="FCOS",
    backbone={
        **_base_._detector.backbone,
        # FCOS was published on these weights, not on detectron2's; they come with pixel means of their own.
        "init_cfg": dict(type="Pretrained", checkpoint="open-mmlab://detectron/resnet50_caffe"),
    },
    neck=dict(
        type="FPN",
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        start_level=1,
        add_extra_convs="on_output",
        num_outs=5,
        relu_before_extra_convs=True,
    ),
    bbox_head=dict(
        type="FCOSHead",
        num_classes=80,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        strides=[8, 16, 32, 64, 128],
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="IoULoss", loss_weight=1.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type="nms", iou_threshold=0.5),
        max_per_img=100,
    ),
)
model = dict(
    detector=dict(_delete_=True, **_detector),
    data_preprocessor=dict(mean=[102.9801, 115.9465, 122.7717]),
)
