"""BCCD blood cells, 10 % labeled: 20 of the 205 training images with boxes, the other 185 without.

Data: the folder `bccd` of SSOD_DATA_ROOT, or of `data/`. The source's own train, val and test lists.
"""

_base_ = []  # above the imports: without it mmengine takes this file for a lazy config
import os

from ssod.data.pipelines import labeled, strong, test, two_views, weak

data_root = os.path.join(os.environ.get("SSOD_DATA_ROOT", "data"), "bccd")
classes = ("RBC", "WBC", "Platelets")

# numpy.random.default_rng(0).choice(ids, size=20, replace=False), ids in the order of train.json; then
# sorted. The first draw, kept as it came: 235 RBC, 22 WBC (in 20 images) and 22 platelets (in 12), that is
# 10 %, 10 % and 11 % of the training boxes. tests/test_configs.py draws it again.
_labeled_ids = [5, 10, 26, 69, 97, 113, 197, 200, 224, 237, 247, 248, 258, 292, 311, 356, 377, 382, 395, 403]

# About half of the original 640 x 480, for the CPU's sake: medians of 19 px for platelets, 51 px for red and
# 95 px for white cells.
_scale = [(272, 204), (352, 264)]
_test_scale = (320, 240)

_train = dict(
    data_root=data_root,
    ann_file="train.json",
    data_prefix=dict(img="images/"),
    metainfo=dict(classes=classes),
)
_labeled = dict(
    type="LabeledCoco",
    **_train,
    only_ids=_labeled_ids,
    filter_cfg=dict(filter_empty_gt=True),
    pipeline=labeled(scale=_scale),
)
_unlabeled = dict(
    type="UnlabeledCoco",
    **_train,
    except_ids=_labeled_ids,
    pipeline=two_views(weak(scale=_scale), strong(scale=_scale)),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="LabeledUnlabeledSampler", counts=(4, 4)),
    collate_fn=dict(type="ssod.collate_views"),
    dataset=dict(type="ConcatDataset", datasets=[_labeled, _unlabeled]),
)

# Boxes of the unlabeled images, which telemetry alone reads; None measures without (docs/telemetry.md).
hidden_truth = f"{data_root}/train.json"

_val = dict(
    type="LabeledCoco",
    data_root=data_root,
    ann_file="val.json",
    data_prefix=dict(img="images/"),
    metainfo=dict(classes=classes),
    test_mode=True,
    pipeline=test(scale=_test_scale),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=_val,
)
test_dataloader = {**val_dataloader, "dataset": {**_val, "ann_file": "test.json"}}
val_evaluator = dict(type="CocoMetric", ann_file=f"{data_root}/val.json", metric="bbox")
test_evaluator = {**val_evaluator, "ann_file": f"{data_root}/test.json"}
