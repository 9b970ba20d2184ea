"""The fixed batches that every contestant steps on, in the form in which loaders hand them over."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ssod.core.image_stack import ImageStack
from ssod.data.draws import seeded
from ssod.data.shapes import CLASSES, draw_dataset
from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.recipe.step_size import Size
from ssod.engine.runner import SemiRunner
from ssod.errors import UserError
from ssod.study.benchmark.settings import Pair

Batch = dict[str, dict[str, Any]]  # {view: {"inputs": ImageStack, "data_samples": [...]}}, as loaders have it
SPARE = 4  # drawn images for each one of a batch, so that a loader has something to go on with
SEED = 0
MMDET_BRANCHES = {"sup": "labeled", "unsup_teacher": "weak", "unsup_student": "strong"}


@dataclass(frozen=True)
class Batches:
    """supervised: L + U labeled images, the work of a supervised step · semi: L labeled, U unlabeled ones."""

    supervised: Batch
    semi: Batch | None
    counts: Pair | None

    @property
    def num_images(self) -> int:
        """The images of either batch."""
        return len(self.supervised["labeled"]["inputs"])


def with_counts(config: Config, counts: Sequence[int]) -> dict[str, Any]:
    """The config's train loader for so many images of each source, in this process."""
    loader = dict(config.train_dataloader)
    sampler = dict(type="LabeledUnlabeledSampler", counts=tuple(counts))
    return loader | dict(batch_size=sum(counts), num_workers=0, persistent_workers=False, sampler=sampler)


def sources(config: Config) -> list[Any]:
    """The datasets' configs of the train loader: labeled images, and unlabeled ones if there are any."""
    dataset = config.train_dataloader.dataset
    return list(dataset.get("datasets") or [dataset])


def draw(config: Config, folder: Path, counts: Sequence[int]) -> None:
    """Puts drawn images in the place of the config's own; their pipelines stay, and its number of classes.

    Images are 160 to 192 px: what the pipelines enlarge them to is smoother than a photograph.
    """
    total = sum(counts)
    draw_dataset(folder, num_train=SPARE * 2 * total, num_val=1, num_labeled=SPARE * total, seed=SEED)
    files = ("train_labeled", "train_unlabeled")
    for source, file, kind in zip(sources(config), files, ("LabeledCoco", "UnlabeledCoco"), strict=False):
        inner = source.get("dataset", source)  # of pseudo boxes from a file: its images
        pipeline = inner.pipeline
        source.clear()
        source.update(
            type=kind,
            data_root=str(folder),
            ann_file=f"annotations/{file}.json",
            data_prefix=dict(img="train/"),
            metainfo=dict(classes=CLASSES),
            pipeline=pipeline,
        )


def load(config: Config, counts: Sequence[int], size: Pair | None, method: nn.Module | None) -> Batches:
    """The batches of a config's own datasets and pipelines, drawn once, all views stretched to `size`."""
    both = len(counts) == 2
    labeled = {**with_counts(config, (sum(counts),)), "dataset": sources(config)[0]}
    loaders = [labeled, *([with_counts(config, counts)] if both else [])]
    with mistakes_in_config(), seeded((SEED,)):
        drawn = [next(iter(SemiRunner.build_dataloader(each, seed=SEED))) for each in loaders]
    if getattr(method, "needs_file", False) and both:
        _label(drawn[1]["strong"])
    if size is not None:
        for batch in drawn:
            for view in batch.values():
                stretch(view, size)
    return Batches(drawn[0], drawn[1] if both else None, (counts[0], counts[1]) if both else None)


def chosen_counts(config: Config, batch: Pair | None) -> tuple[int, ...]:
    """Labeled and unlabeled images of a batch, the latter only where the config has any."""
    own = Size.of(config, 1).counts
    if len(sources(config)) == 1:
        return (sum(batch) if batch else sum(own),)
    if batch is None and len(own) != 2:
        raise UserError(
            "the config's sampler has no counts for labeled and unlabeled images: add --batch 1+4"
        )
    return batch or tuple(own)


def _label(view: dict[str, Any]) -> None:
    """Gives the images of a view 15 boxes each with scores, as a file of pseudo labels would."""
    generator = torch.Generator().manual_seed(SEED)
    for image, sample in zip(view["inputs"], view["data_samples"], strict=True):
        scale = torch.tensor([image.shape[2], image.shape[1]]).repeat(2)
        corner = torch.rand(15, 2, generator=generator) * 0.7
        sides = 0.1 + torch.rand(15, 2, generator=generator) * 0.2
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + sides], dim=1) * scale,
            labels=torch.zeros(15, dtype=torch.int64),
            scores=torch.full((15,), 0.95),
        )


def stretch(view: dict[str, Any], size: Pair) -> None:
    """Makes every image of a view `size` (width, height) px, with its boxes and its homography.

    The sides' ratio is not kept: what a step costs depends on the size alone.
    """
    width, height = size
    images = []
    for image, sample in zip(view["inputs"], view["data_samples"], strict=True):
        factors = (width / image.shape[2], height / image.shape[1])
        resized = nn.functional.interpolate(image[None].float(), (height, width), mode="bilinear")[0]
        images.append(resized.round().clamp(0, 255).to(torch.uint8))
        for name in ("gt_instances", "ignored_instances"):
            instances = getattr(sample, name, None)
            if instances is not None and "bboxes" in instances:
                _scale(instances, factors)
        homography = np.diag([*factors, 1.0]) @ np.asarray(sample.homography_matrix, dtype=np.float64)
        sample.set_metainfo(dict(img_shape=(height, width), homography_matrix=homography))
    view["inputs"] = ImageStack.of(images)


def _scale(instances: Any, factors: tuple[float, float]) -> None:
    if isinstance(instances.bboxes, Tensor):
        instances.bboxes = instances.bboxes * instances.bboxes.new_tensor(factors * 2)
    else:
        instances.bboxes.rescale_(factors)


def _fill(sample: Any) -> None:
    """Gives a sample the empty annotations that mmdet's pipeline for unlabeled images loads."""
    for name in ("gt_instances", "ignored_instances"):
        instances = sample.get(name)
        if instances is None or "bboxes" not in instances:
            empty = dict(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
            setattr(sample, name, InstanceData(**empty))


def limit_classes(batch: Mapping[str, Any], num_classes: int) -> None:
    """Makes every label of a batch one that a head of so many classes knows."""
    for view in batch.values():
        for sample in view["data_samples"]:
            instances = sample.gt_instances
            if "labels" in instances:  # an unlabeled image has none
                instances.labels = instances.labels.remainder(num_classes)


def fresh(batch: Batch) -> Batch:
    """A copy for one step: preprocessors write into data samples; the pixels are shared."""
    return {
        name: {
            "inputs": view["inputs"],
            "data_samples": copy.deepcopy(view["data_samples"]),
        }
        for name, view in batch.items()
    }


def as_mmdet_supervised(batch: Batch) -> dict[str, Any]:
    """The labeled images as mmdet's detectors take them."""
    return _in_a_list(fresh(batch)["labeled"])


def _in_a_list(view: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A view as mmdet's loader hands it over: its images one by one, each in one piece."""
    images = [image.contiguous() for image in view["inputs"]]
    return {"inputs": images, "data_samples": list(view["data_samples"])}


def as_mmdet_semi(batch: Batch) -> dict[str, Any]:
    """The batch as mmdet's multi-branch loader hands it over: every branch as long as the batch, with gaps.

    Homographies are float32, which mmdet multiplies with boxes.
    """
    views = fresh(batch)
    labeled, unlabeled = (len(views[name]["inputs"]) for name in ("labeled", "weak"))
    semi: dict[str, Any] = {"inputs": {}, "data_samples": {}}
    for branch, name in MMDET_BRANCHES.items():
        for sample in views[name]["data_samples"]:
            homography = np.asarray(sample.homography_matrix, dtype=np.float32)
            sample.set_metainfo(dict(homography_matrix=homography))
            _fill(sample)
        for key, values in semi.items():
            given = _in_a_list(views[name])[key]
            gaps: tuple[list[None], list[None]] = ([None] * labeled, [None] * unlabeled)
            values[branch] = [*given, *gaps[1]] if name == "labeled" else [*gaps[0], *given]
    return semi
