"""A few small images, a lively tiny detector in a checkpoint, and a config that belongs to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config

from . import detectors

CLASSES = tuple("abcdefgh")
SHAPES = ((64, 96), (48, 64), (64, 64), (96, 64), (60, 90), (64, 96), (48, 48))


def model_config(teacher: bool = True) -> dict[str, Any]:
    return dict(
        type="SemiDetector",
        detector=detectors.config(),
        method=None,
        teacher=dict(type="EMATeacher") if teacher else None,
        data_preprocessor=dict(
            type="SemiPreprocessor", mean=[127.0] * 3, std=[60.0] * 3, bgr_to_rgb=True, pad_size_divisor=32
        ),
    )


def build(teacher: bool = True, seed: int = 0) -> Any:
    """The model of `model_config`, its networks lively and different; some boxes score above 0.5."""
    from ssod.registry import MODELS

    torch.manual_seed(seed)
    model = MODELS.build(model_config(teacher)).train()
    detectors.enliven(model.student)
    if teacher:
        detectors.enliven(model.teacher)
    return model.eval()


def write_images(folder: Path) -> Path:
    """Smooth random images of several sizes, so that batches are padded."""
    folder.mkdir(parents=True)
    for number, (height, width) in enumerate(SHAPES):
        coarse = np.random.default_rng(number).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(coarse, (width, height)))
    return folder


def write_coco(path: Path, file_names: list[str], boxes: bool) -> Path:
    """A COCO file of images that `write_images` wrote, each with a box if asked for."""
    images = []
    for number, name in enumerate(file_names, 1):
        height, width = SHAPES[int(Path(name).stem)]
        images.append(dict(id=number, file_name=name, height=height, width=width))
    truth = [
        dict(id=each["id"], image_id=each["id"], category_id=2, bbox=[5, 5, 30, 30], area=900, iscrowd=0)
        for each in images
    ]
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    path.write_text(json.dumps(dict(images=images, annotations=truth * boxes, categories=categories)))
    return path


def write_config(path: Path, **more: Any) -> Path:
    """The config as a file: the model, and how images are tested."""
    from ssod.data.pipelines import test

    dataset = dict(
        type="LabeledCoco", metainfo=dict(classes=CLASSES), pipeline=test((96, 96)), test_mode=True
    )
    loader = dict(batch_size=2, num_workers=0, dataset=dataset)
    Config(dict(model=model_config(), val_dataloader=loader, **more)).dump(path)
    return path


def write_checkpoint(path: Path, model: Any) -> Path:
    torch.save({"state_dict": model.state_dict(), "meta": {"iter": 1}}, path)
    return path


def write_trained(folder: Path) -> None:
    """`config.py` and `model.pth`; `plain.py` and `plain.pth` have no teacher."""
    write_config(folder / "config.py")
    write_checkpoint(folder / "model.pth", build())
    plain = Config.fromfile(folder / "config.py")
    plain.model.teacher = None
    plain.dump(folder / "plain.py")
    write_checkpoint(folder / "plain.pth", build(teacher=False))
