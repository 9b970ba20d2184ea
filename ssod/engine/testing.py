"""COCO AP of a checkpoint: what tools/test.py calls, and a test calls in its own process."""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from ssod.engine import evaluate
from ssod.engine.config import check_names, merge_options, read_config
from ssod.engine.loading import choose_workers
from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.records import result
from ssod.engine.runner import warnings_to_log
from ssod.engine.saving import checkpoints
from ssod.errors import RunError, UserError
from ssod.registry import MODELS, register_all_modules


def evaluate_checkpoint(
    config_path: str | Path,
    checkpoint: str | Path,
    which: str | None = None,
    split: str = "val",
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What was tested and `metrics` by network, as in result.json.

    which: "teacher", "student" or "both", by default all there are · split: "val" or "test", whose
    dataloader and evaluator in the config are used. Raises UserError for bad input.
    """
    register_all_modules()
    with warnings_to_log():
        config = read_config(config_path)
        check_names(config, config_path)
        merge_options(config, options or {})
        choose_workers(config)
        loader, metric = _parts(config, config_path, split)
        silence()
        model, content = load_model(config, checkpoint)
        networks = evaluate.choose_networks(model, which)
        with mistakes_in_config(), evaluate.prints_to(None):
            dataloader = Runner.build_dataloader(loader, seed=0)
            evaluators = evaluate.build_evaluators(metric, networks, dataloader.dataset)
        evaluate.check_classes(model, dataloader.dataset)
        num_images = len(dataloader.dataset)
        flat = evaluate.evaluate(model, dataloader, evaluators, num_images)
    return {
        "schema": 1,
        "config": str(config_path),
        "checkpoint": str(checkpoint),
        "iteration": content.get("meta", {}).get("iter"),
        "split": split,
        "num_images": num_images,
        "versions": result.versions(),
        "test": {
            "score_thr": result.score_threshold(config),
            "evaluator": result.evaluator_name(config),
        },
        "metrics": by_network(flat),
    }


def check_out_file(out: str | Path) -> None:
    """Raises UserError where an `--out` can't be a file: before the work, not after it."""
    if Path(out).is_dir():
        raise UserError(f"--out {out} is a folder: name a file in it, such as {Path(out, 'ap.json')}")
    if not Path(out).resolve().parent.is_dir():
        raise UserError(f"--out {out}: the folder does not exist")


def write_report(out: str | Path, report: Mapping[str, Any]) -> None:
    """Writes what `evaluate_checkpoint` gave as JSON; RunError where the machine denies it."""
    try:
        result.write_json(Path(out), report)
    except OSError as error:
        raise RunError(f"--out {out} can't be written ({error.strerror}): name another place") from error


def load_model(config: Config, checkpoint: str | Path) -> tuple[Any, dict[str, Any]]:
    """The config's model with a checkpoint's weights, on the device, and the checkpoint's content.

    Pretrained weights, which the checkpoint's take the place of, need not be there. Raises UserError for a
    file that can't be read or belongs to another model.
    """
    content = checkpoints.load(checkpoint)
    parts = copy.deepcopy(config.model)  # mmdet writes into what it builds from
    backbone = (parts.get("detector") or {}).get("backbone") or {}
    if backbone.get("type") in ("TorchvisionBackbone", "ssod.TorchvisionBackbone"):
        backbone["weights"] = None
    with mistakes_in_config(), evaluate.prints_to(None):
        model = MODELS.build(parts)
    checkpoints.check_weights(model, content, str(checkpoint))
    model.load_state_dict(content["state_dict"])
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return model, content


def by_network(flat: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """`{"teacher": {"bbox_mAP": ...}}` from `{"teacher/bbox_mAP": ...}`."""
    nested: dict[str, dict[str, float]] = {}
    for key, value in flat.items():
        network, _, name = key.partition("/")
        nested.setdefault(network, {})[name] = value
    return nested


def _parts(config: Config, path: str | Path, split: str) -> tuple[Any, Any]:
    """The dataloader and the evaluator of a split."""
    names = ("model", f"{split}_dataloader", f"{split}_evaluator")
    for name in names:
        if not config.get(name):
            mend = ": use --split val" if split == "test" and config.get("val_dataloader") else ""
            raise UserError(f"config {path} has no {name}, which testing on {split!r} needs{mend}")
    return config[names[1]], config[names[2]]


def silence() -> None:
    """Keeps mmengine's and mmdet's log off the console: no run's file would take it."""
    logger = MMLogger.get_instance("ssod-test")
    logger.handlers = [logging.NullHandler()]
    warnings_logger = logging.getLogger("py.warnings")
    warnings_logger.handlers, warnings_logger.propagate = [logging.NullHandler()], False
