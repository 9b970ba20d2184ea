"""COCO 2017, fold 1 at 10 % labeled, 1 + 4 images a batch; other shares replace the two annotation files.

Data: the folder `coco` of SSOD_DATA_ROOT, or of `data/`, with `train2017/`, `val2017/`, `annotations/`, and
in `semi_anns/` the splits `instances_train2017.{fold}@{percent}.json` and `...-unlabeled.json` that
tools/split_data.py writes (protocol `stac` for mmdet's, `soft_teacher` for the released code's; a result
names which). Eight processes make the published batch of 8 x (1 + 4). Another fold:
--cfg-options train_dataloader.dataset.datasets.0.ann_file=... and the same for datasets.1.

Views are the pipelines' defaults, which are mmdet's: scale (1333, 400) to (1333, 1200), test (1333, 800). The
released code differs twice: it draws every image of a batch from the labeled set with probability 1/5, where
mmdet and this file fix 1 + 4; and it chooses between translation in x, in y, rotation and shear, where mmdet
chooses between five.
"""

_base_ = []  # above the imports: without it mmengine takes this file for a lazy config
import os

from ssod.data.pipelines import labeled, strong, test, two_views, weak

data_root = os.path.join(os.environ.get("SSOD_DATA_ROOT", "data"), "coco")
# fmt: off
classes = (  # in the order of the official files
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
    "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on

_labeled = dict(
    type="LabeledCoco",
    data_root=data_root,
    ann_file="semi_anns/instances_train2017.1@10.json",
    data_prefix=dict(img="train2017/"),
    metainfo=dict(classes=classes),
    filter_cfg=dict(filter_empty_gt=True, min_size=32),
    pipeline=labeled(),
)
_unlabeled = dict(
    type="UnlabeledCoco",
    data_root=data_root,
    ann_file="semi_anns/instances_train2017.1@10-unlabeled.json",
    data_prefix=dict(img="train2017/"),
    metainfo=dict(classes=classes),
    pipeline=two_views(weak(), strong()),
)
train_dataloader = dict(
    batch_size=5,
    sampler=dict(type="LabeledUnlabeledSampler", counts=(1, 4)),
    collate_fn=dict(type="ssod.collate_views"),
    dataset=dict(type="ConcatDataset", datasets=[_labeled, _unlabeled]),
)
# Boxes of the unlabeled images, which telemetry alone reads; None measures without (docs/telemetry.md).
hidden_truth = f"{data_root}/annotations/instances_train2017.json"
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="LabeledCoco",
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test(),
    ),
)
val_evaluator = dict(
    type="CocoMetric", ann_file=f"{data_root}/annotations/instances_val2017.json", metric="bbox"
)
# The published splits are by id. Copies that COCO itself may hold are reported; leaving them out would be
# another benchmark.
data_policy = dict(allow_leaks=True)
