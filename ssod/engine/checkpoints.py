"""Checkpoints in mmengine's layout, the last and the best; and whether one belongs to a model."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner.checkpoint import _load_checkpoint
from torch import Tensor, nn

from ssod.engine import random_state
from ssod.engine.evaluate import prints_to, unwrap
from ssod.errors import UserError
from ssod.registry import HOOKS

FOLDER = "checkpoints"
LAST = "last.pth"


@HOOKS.register_module()
class Checkpoints(Hook):  # type: ignore[misc]
    """Writes checkpoints: the last every `interval` iterations and when training ends or stops.

    `last.pth` resumes the run; `best_<network>.pth` is of the validation with the highest `metric`.
    A file is complete or not there: it is written beside and moved into place. mmengine's keys hold
    what mmengine expects; beside them stands `random_state`.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int = 500, metric: str = "bbox_mAP") -> None:
        self.interval = interval
        self.metric = metric
        self.saved = -1  # the iteration that `last.pth` holds

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Saves at the interval."""
        if (runner.iter + 1) % self.interval == 0:
            save(runner, LAST, runner.iter + 1)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Saves the model for each network that has never been better."""
        for key, value in (metrics or {}).items():
            network, _, name = key.rpartition("/")
            best = runner.message_hub.get_info(f"best_{network}", -math.inf)
            if name == self.metric and value > best:
                runner.message_hub.update_info(f"best_{network}", value)
                save(runner, f"best_{network}.pth", runner.iter, with_optimizer=False)

    def after_train(self, runner: Any) -> None:
        """Saves the end, or the place where a signal stopped the run."""
        save(runner, LAST, runner.iter)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Adds the state of the random generators."""
        checkpoint["random_state"] = random_state.capture()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Refuses another model's checkpoint; keeps the random state for the loop to take up."""
        check_weights(runner.model, checkpoint, str(runner._load_from))
        # One process's state can't stand for several: with more, ranks go on from their seeds.
        if get_world_size() == 1 and hasattr(runner.train_loop, "random_state"):
            runner.train_loop.random_state = checkpoint.get("random_state")


def save(runner: Any, name: str, iteration: int, with_optimizer: bool = True) -> None:
    """Writes the state after `iteration` iterations to `checkpoints/<name>`, or leaves what was."""
    folder = Path(runner.work_dir, FOLDER)
    if not is_main_process():
        return
    folder.mkdir(exist_ok=True)
    runner.save_checkpoint(
        str(folder),
        f".{name}.partial",
        save_optimizer=with_optimizer,
        save_param_scheduler=with_optimizer and runner.param_schedulers is not None,
        meta={"epoch": 0, "iter": iteration},
        by_epoch=False,
    )
    os.replace(folder / f".{name}.partial", folder / name)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint file, on the host; UserError if missing or no checkpoint."""
    if not Path(path).is_file():
        raise UserError(f"checkpoint {path} does not exist: give the path of a .pth file")
    try:
        # mmengine's reader admits plain values and arrays only (torch's weights_only).
        with prints_to(None):
            content = _load_checkpoint(str(path), map_location="cpu")
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {path} can't be read ({reason}): is it complete?") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        raise UserError(f"checkpoint {path} has no state_dict: it was not written by a training run")
    return content


def check_weights(model: nn.Module, checkpoint: Mapping[str, Any], path: str) -> None:
    """Raises UserError unless the checkpoint has exactly the model's weights, by name and shape."""
    ours: dict[str, Tensor] = unwrap(model).state_dict()
    theirs: Mapping[str, Tensor] = checkpoint["state_dict"]
    missing = [key for key in ours if key not in theirs and "num_batches_tracked" not in key]
    unexpected = [key for key in theirs if key not in ours]
    different = [key for key in ours if key in theirs and ours[key].shape != theirs[key].shape]
    if not missing and not unexpected and not different:
        return
    parts = [_count("missing", missing), _count("unexpected", unexpected)]
    if different:
        key = different[0]
        shapes = f"{tuple(theirs[key].shape)} instead of {tuple(ours[key].shape)}"
        parts.append(f"{_count('of another shape', different)} {shapes}")
    raise UserError(
        f"checkpoint {path} belongs to another model: of {len(ours)} weights "
        f"{', '.join(part for part in parts if part)}; use the config it was trained with"
    )


def _count(what: str, keys: Sequence[str]) -> str:
    """How many keys there are and the first of them; empty for none."""
    return f"{len(keys)} {what} (first: {keys[0]})" if keys else ""
