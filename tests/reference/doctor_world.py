"""A small healthy training in a folder: images, COCO files, a config. Tests break one thing and write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from . import detectors

CLASSES = ("bolt", "nut")
PARTS = {"labeled": 4, "unlabeled": 4, "val": 3, "test": 2}  # images of each
WIDTH, HEIGHT = 96, 64


class World:
    """files: the content of each part's COCO file · config: a plain dict; both for changes before `save`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {name: coco(name, count) for name, count in PARTS.items()}
        self.config = config(folder)
        for name, file in self.files.items():
            (folder / name).mkdir(parents=True)
            for image in file["images"]:
                picture(folder / name / image["file_name"], image["id"], image["width"], image["height"])

    def save(self) -> Path:
        """Writes the files and the config; returns the config's path."""
        for name, content in self.files.items():
            (self.folder / f"{name}.json").write_text(json.dumps(content))
        path = self.folder / "run.py"
        path.write_text("".join(f"{name} = {value!r}\n" for name, value in self.config.items()))
        return path

    def image(self, part: str, index: int = 0) -> Path:
        """The file of an image."""
        return self.folder / part / self.files[part]["images"][index]["file_name"]

    def dataset(self, part: str) -> dict[str, Any]:
        """The config of a part's dataset."""
        if part in ("val", "test"):
            found: dict[str, Any] = self.config[f"{part}_dataloader"]["dataset"]
            return found
        return self.config["train_dataloader"]["dataset"]["datasets"][["labeled", "unlabeled"].index(part)]


def picture(path: Path, seed: int, width: int, height: int) -> None:
    """Writes a smooth random image."""
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (width, height)))


def coco(part: str, count: int) -> dict[str, Any]:
    """A file with landscape and portrait images, twelve boxes of two classes in each."""
    first = 100 * list(PARTS).index(part) + 1
    images = []
    for number in range(first, first + count):
        width, height = (WIDTH, HEIGHT) if number % 2 else (HEIGHT, WIDTH)
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
    annotations = [
        {
            "id": 100 * image["id"] + box,
            "image_id": image["id"],
            "category_id": 1 + box % 2,
            "bbox": [4 + box, 2 * box, 20 + box, 24],
            "area": (20 + box) * 24,
            "iscrowd": 0,
        }
        for image in images
        for box in range(12)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    return {
        "images": images,
        "annotations": [] if part == "unlabeled" else annotations,
        "categories": categories,
    }


def config(folder: Path) -> dict[str, Any]:
    """A Soft Teacher on a tiny detector."""
    from ssod.data.pipelines import labeled, strong, test, two_views, weak

    detector = detectors.config().to_dict()
    detector["roi_head"]["bbox_head"]["num_classes"] = len(CLASSES)
    scale = (WIDTH, WIDTH)

    def dataset(kind: str, part: str, pipeline: Any, **more: Any) -> dict[str, Any]:
        return dict(
            type=kind,
            data_root=str(folder),
            ann_file=f"{part}.json",
            data_prefix=dict(img=f"{part}/"),
            metainfo=dict(classes=CLASSES),
            pipeline=pipeline,
            **more,
        )

    def loader(part: str) -> dict[str, Any]:
        tested = dataset("LabeledCoco", part, test(scale), test_mode=True)
        sampler = dict(type="DefaultSampler", shuffle=False)
        return dict(batch_size=1, num_workers=0, sampler=sampler, dataset=tested)

    def evaluator(part: str) -> dict[str, Any]:
        return dict(type="CocoMetric", ann_file=str(folder / f"{part}.json"), metric="bbox")

    views = two_views(weak(scale), strong(scale))
    sources = [
        dataset("LabeledCoco", "labeled", labeled(scale), filter_cfg=dict(filter_empty_gt=True)),
        dataset("UnlabeledCoco", "unlabeled", views),
    ]
    return dict(
        default_scope="ssod",
        model=dict(
            type="SemiDetector",
            detector=detector,
            method=dict(type="SoftTeacher", unsup_weight=dict(value=1.0, start=100)),
            teacher=dict(type="EMATeacher", decay=0.99),
            data_preprocessor=dict(
                type="SemiPreprocessor",
                mean=[127.0] * 3,
                std=[60.0] * 3,
                bgr_to_rgb=True,
                pad_size_divisor=32,
            ),
        ),
        train_dataloader=dict(
            batch_size=4,
            num_workers=1,
            persistent_workers=True,
            sampler=dict(type="LabeledUnlabeledSampler", counts=(2, 2)),
            collate_fn=dict(type="ssod.collate_views"),
            dataset=dict(type="ConcatDataset", datasets=sources),
        ),
        val_dataloader=loader("val"),
        test_dataloader=loader("test"),
        val_evaluator=evaluator("val"),
        test_evaluator=evaluator("test"),
        train_cfg=dict(type="SemiTrainLoop", max_iters=1000, val_interval=500),
        val_cfg=dict(type="SemiValLoop"),
        optim_wrapper=dict(
            type="GuardedOptimWrapper",
            optimizer=dict(type="SGD", lr=0.005, momentum=0.9),
            clip_grad=dict(max_norm=10.0),
        ),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
            dict(type="MultiStepLR", by_epoch=False, begin=0, end=1000, milestones=[700], gamma=0.1),
        ],
    )
