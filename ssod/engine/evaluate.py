"""COCO metrics of the chosen networks: the core of validation and of tools/test.py."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from torch import nn

from ssod.errors import UserError

# What COCO's evaluation gives for detections that are all wrong; for none mmdet returns nothing.
NO_DETECTIONS = {f"bbox_{name}": 0.0 for name in ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")}


@contextmanager
def prints_to(write: Callable[[str], Any] | None) -> Iterator[None]:
    """A block whose prints (pycocotools' tables) go to `write`, as one text, not to the console."""
    text = StringIO()
    try:
        with redirect_stdout(text):
            yield
    finally:
        if write is not None and text.getvalue().strip():
            write(text.getvalue())


def unwrap(model: nn.Module) -> Any:
    """The model without the wrapper of distributed training."""
    return model.module if hasattr(model, "module") else model


def choose_networks(model: nn.Module, which: str | Sequence[str] | None) -> tuple[str, ...]:
    """The networks to evaluate, all for None or "both"; UserError for one there is not."""
    there: tuple[str, ...] = tuple(unwrap(model).which)
    if which is None or which == "both":
        return there
    wanted = (which,) if isinstance(which, str) else tuple(which)
    for name in wanted:
        if name not in there:
            raise UserError(f"there is no network {name!r} to evaluate, only {' and '.join(there)}")
    return wanted


def build_evaluators(config: Any, networks: Sequence[str], dataset: Any) -> dict[str, Evaluator]:
    """One evaluator for each network, so that one pass over the images serves all of them."""
    evaluators = {name: Evaluator(copy.deepcopy(config)) for name in networks}
    for evaluator in evaluators.values():
        evaluator.dataset_meta = dataset.metainfo
    return evaluators


def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    evaluators: dict[str, Evaluator],
    num_images: int,
    write: Callable[[str], Any] | None = None,
    after_batch: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """`{"teacher/bbox_mAP": ..., ...}` of the networks that have an evaluator, in float32.

    write: takes what the metrics print · after_batch: called with each batch's number.
    """
    plain = unwrap(model)
    device = next(plain.parameters()).device.type
    plain.eval()
    with torch.no_grad(), torch.autocast(device, enabled=False):
        for number, batch in enumerate(batches):
            data = plain.data_preprocessor(batch, False)
            for name, evaluator in evaluators.items():
                found = plain.predict(data["inputs"], data["data_samples"], which=name)
                evaluator.process(data_samples=found, data_batch=batch)
            if after_batch is not None:
                after_batch(number)
    metrics: dict[str, float] = {}
    for name, evaluator in evaluators.items():
        with prints_to(write):
            values = evaluator.evaluate(num_images) or NO_DETECTIONS
        metrics |= {f"{name}/{key.removeprefix('coco/')}": value for key, value in values.items()}
    return metrics


def dry_run(model: nn.Module, dataloader: Any, evaluators: dict[str, Evaluator], num_images: int = 2) -> None:
    """Predicts, scores and forgets a few validation images; UserError where classes disagree.

    What it finds would otherwise be found at the first validation, hours into the run.
    """
    dataset = dataloader.dataset
    check_classes(model, dataset)
    items = [dataset[index] for index in range(min(num_images, len(dataset)))]
    shown = copy.deepcopy(evaluators)  # the real ones must not remember these images
    for evaluator in shown.values():
        for metric in evaluator.metrics:
            if getattr(metric, "img_ids", False) is None:
                metric.img_ids = [item["data_samples"].img_id for item in items]
    try:
        evaluate(model, [dataloader.collate_fn(items)], shown, len(items))
    except IndexError as error:
        raise UserError(
            f"the validation of {len(items)} images before training failed ({error}): do the "
            "model's num_classes, val_dataloader's classes and val_evaluator's ann_file agree?"
        ) from error


def check_classes(model: nn.Module, dataset: Any) -> None:
    """Raises UserError unless the detector has as many classes as the dataset names."""
    classes = tuple(dataset.metainfo.get("classes") or ())
    for head in _box_heads(unwrap(model)):
        if classes and head.num_classes != len(classes):
            names = ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
            raise UserError(
                f"the detector's {type(head).__name__} has num_classes={head.num_classes}, but the "
                f"validation dataset has {len(classes)} classes ({names}): make them equal"
            )


def _box_heads(model: nn.Module) -> list[Any]:
    """The heads of the student that tell classes apart; none for a model built in another way."""
    student = getattr(model, "student", None)
    head = getattr(getattr(student, "roi_head", student), "bbox_head", None)
    heads: list[Any] = list(head) if isinstance(head, nn.ModuleList) else [head]
    return [each for each in heads if hasattr(each, "num_classes")]
