"""The drawn dataset: 50 labeled and 950 unlabeled images of 6 classes, 160-192 px (ssod/data/shapes.py)."""

_base_ = []  # above the import: without it mmengine takes this file for a lazy config
from ssod.data.pipelines import labeled, strong, test, two_views, weak
from ssod.data.shapes import CLASSES, ensure_shapes

# Drawn here on first use (ten seconds), into the checkout's data/shapes.
data_root = str(ensure_shapes("{{ fileDirname }}/../../../data/shapes"))
classes = CLASSES

_scale = [(168, 168), (192, 192)]
_labeled = dict(
    type="LabeledCoco",
    data_root=data_root,
    ann_file="annotations/train_labeled.json",
    data_prefix=dict(img="train/"),
    metainfo=dict(classes=classes),
    filter_cfg=dict(filter_empty_gt=True),
    pipeline=labeled(scale=_scale),
)
_unlabeled = dict(
    type="UnlabeledCoco",
    data_root=data_root,
    ann_file="annotations/train_unlabeled.json",
    data_prefix=dict(img="train/"),
    metainfo=dict(classes=classes),
    pipeline=two_views(weak(scale=_scale), strong(scale=_scale)),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="LabeledUnlabeledSampler", counts=(8, 8)),
    collate_fn=dict(type="ssod.collate_views"),
    dataset=dict(type="ConcatDataset", datasets=[_labeled, _unlabeled]),
)
# Boxes of the unlabeled images, which telemetry alone reads; None measures without (docs/telemetry.md).
hidden_truth = f"{data_root}/annotations/train_unlabeled_truth.json"
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="LabeledCoco",
        data_root=data_root,
        ann_file="annotations/val.json",
        data_prefix=dict(img="val/"),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test(scale=(192, 192)),
    ),
)
val_evaluator = dict(type="CocoMetric", ann_file=f"{data_root}/annotations/val.json", metric="bbox")
