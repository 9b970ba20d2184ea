"""Your own images: some labeled ones in a COCO file, and a folder of unlabeled ones without any file.

Data: the folder `own` of SSOD_DATA_ROOT, or of `data/`, with `labeled.json` and `val.json` (COCO's format),
the images of both in `images/`, and in `unlabeled/` any images in any folders. Other names: change them in
a copy. What is unlabeled may also be a glob, a text list with one path a line, a COCO file, or a list of
several of these.

`classes` is named here alone: the names in the COCO files, in their order.
"""

_base_ = []  # above the imports: without it mmengine takes this file for a lazy config
import os

from ssod.data.pipelines import labeled, strong, test, two_views, weak

data_root = os.path.join(os.environ.get("SSOD_DATA_ROOT", "data"), "own")
classes = ("cat", "dog")

# Short side drawn from 480 to 800 px, long side up to 1333: the usual sizes of a detector that starts from
# ImageNet. Larger for small objects, smaller for speed.
_scale = [(1333, 480), (1333, 800)]
_labeled = dict(
    type="LabeledCoco",
    data_root=data_root,
    ann_file="labeled.json",
    data_prefix=dict(img="images/"),
    pipeline=labeled(scale=_scale),  # an image without a box stays, as an example of background
)
_unlabeled = dict(
    type="UnlabeledImages",
    data_root=data_root,
    images="unlabeled",
    filter_cfg=dict(min_size=32),  # thumbnails and icons, which crawled folders are full of
    pipeline=two_views(weak(scale=_scale), strong(scale=_scale)),
)
train_dataloader = dict(
    batch_size=5,
    sampler=dict(type="LabeledUnlabeledSampler", counts=(1, 4)),
    collate_fn=dict(type="ssod.collate_views"),
    dataset=dict(type="ConcatDataset", datasets=[_labeled, _unlabeled]),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="LabeledCoco",
        data_root=data_root,
        ann_file="val.json",
        data_prefix=dict(img="images/"),
        test_mode=True,
        pipeline=test(scale=(1333, 800)),
    ),
)
val_evaluator = dict(type="CocoMetric", ann_file=f"{data_root}/val.json", metric="bbox")
# Crawled images are never all whole: up to 1 % of them may be bad before a run stops.
data_policy = dict(on_bad_image="skip", max_bad_fraction=0.01, allow_leaks=False)
