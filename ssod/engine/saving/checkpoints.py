"""Checkpoints in mmengine's layout, the last and the best; and whether one belongs to a model."""

import math
import os
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import mmengine
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from torch import Tensor, nn

from ssod import safe_load
from ssod.engine.evaluate import unwrap
from ssod.engine.faults.equality import check_equal_on_ranks
from ssod.engine.optim import at_optimizer_step
from ssod.engine.saving import resume
from ssod.engine.saving.checkpoint_writer import CheckpointWriter
from ssod.errors import UserError
from ssod.registry import HOOKS

FOLDER = "checkpoints"
LAST = "last.pth"
KEPT = "iter_*.pth"


@HOOKS.register_module()
class Checkpoints(Hook):  # type: ignore[misc]
    """Writes checkpoints: the last every `interval` iterations and when training ends or stops.

    `last.pth` resumes the run to the bit; `iter_<n>.pth` are the last `keep` of them, the newest being the
    same file under another name; `best_<network>.pth` is of the validation with the highest `metric`. A file
    is whole or not there. The first process writes, in a thread: a step waits for the copy to host memory,
    and for the write before if that is still going on. With gradient accumulation a checkpoint waits for the
    optimizer's step. mmengine's keys hold what mmengine expects; beside them stands what `resume.capture`
    adds. Several processes have the same student and teacher, to the bit, or the run ends there.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int = 500, metric: str = "bbox_mAP", keep: int = 2) -> None:
        if interval < 1 or keep < 1:
            raise UserError(f"Checkpoints: interval={interval}, keep={keep}; both are at least 1")
        self.interval = interval
        self.metric = metric
        self.keep = keep
        self.due = False
        self.start_teacher = False  # of a resumed run: resume.leaves_out_start
        self.config_text: str | None = None  # costs a second or more to make

    def before_run(self, runner: Any) -> None:
        """Opens the writer; removes what a killed run left half written."""
        self.folder = Path(runner.work_dir, FOLDER)
        self.writer = CheckpointWriter(self.folder)
        if is_main_process():
            for partial in self.folder.glob(".*.partial"):
                partial.unlink()

    def before_train(self, runner: Any) -> None:
        """Starts a resumed run's teacher, where that is due; its weights are loaded by now."""
        if self.start_teacher:
            unwrap(runner.model).start()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Saves at the interval; raises OSError where an earlier write failed."""
        self.writer.check()
        self.due = self.due or (runner.iter + 1) % self.interval == 0
        if self.due and at_optimizer_step(runner):
            self._save_last(runner, runner.iter + 1)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Saves the model for each network that has never been better."""
        better = []
        for key, value in (metrics or {}).items():
            network, _, name = key.rpartition("/")
            best = runner.message_hub.get_info(f"best_{network}", -math.inf)
            if name == self.metric and value > best:
                runner.message_hub.update_info(f"best_{network}", value)
                better.append(f"best_{network}.pth")
        if better and is_main_process():
            self.writer.submit(self._content(runner, runner.iter), better)

    def after_train(self, runner: Any) -> None:
        """Saves the end, or the place where a signal stopped the run."""
        self.save_now(runner, runner.iter)

    def save_now(self, runner: Any, iteration: int) -> None:
        """Saves the state after `iteration` iterations; it is on disk when this returns."""
        self._save_last(runner, iteration)
        self.writer.wait()
        barrier()  # a process that ends may take the one that writes with it

    def finish_writing(self, runner: Any) -> None:
        """Lets a write that is under way come to its end, whatever has ended the run."""
        with suppress(Exception):  # the run has failed of something, and this is not it
            self.writer.wait()

    def _save_last(self, runner: Any, iteration: int) -> None:
        self.due = False
        check_equal_on_ranks(unwrap(runner.model), "the networks")
        runner.call_hook("before_capture")  # on all processes; before_save_checkpoint is on the first alone
        state = resume.capture(runner, iteration)  # all processes take part
        if not is_main_process():
            return
        content = {**self._content(runner, iteration), **on_host(state)}
        content["optimizer"] = on_host(runner.optim_wrapper.state_dict())
        if runner.param_schedulers is not None:
            content["param_schedulers"] = [on_host(each.state_dict()) for each in runner.param_schedulers]
        runner.call_hook("before_save_checkpoint", checkpoint=content)
        names = [LAST] if self.keep == 1 else [LAST, KEPT.replace("*", f"{iteration:08d}")]
        self.writer.submit(content, names, self._remove_old)

    def _content(self, runner: Any, iteration: int) -> dict[str, Any]:
        """The model and what is said about it, copied to the host; mmengine's layout."""
        if self.config_text is None:
            self.config_text = runner.cfg.pretty_text
        meta = {
            "epoch": 0,
            "iter": iteration,
            "cfg": self.config_text,
            "seed": runner.seed,
            "experiment_name": runner.experiment_name,
            "time": time.strftime("%Y%m%d_%H%M%S"),
            "mmengine_version": mmengine.__version__,
            "dataset_meta": dict(getattr(runner.train_dataloader.dataset, "metainfo", {})),
            "size": vars(resume.size_of(runner)),
            "burn_in": resume.burn_in_of(runner),
        }
        hub = runner.message_hub.state_dict()
        info = {key: value for key, value in hub["runtime_info"].items() if key != "cfg"}
        return {
            "meta": on_host(meta),
            "state_dict": on_host(unwrap(runner.model).state_dict()),
            # Without mmengine's histories of scalars, which no run of ours reads.
            "message_hub": {
                "log_scalars": {},
                "runtime_info": on_host(info),
                "resumed_keys": dict.fromkeys(info, True),
            },
        }

    def _remove_old(self) -> None:
        """Removes all but the last `keep` checkpoints."""
        kept = sorted(self.folder.glob(KEPT), key=lambda path: (path.stat().st_mtime_ns, path.name))
        for path in kept[: -self.keep]:
            path.unlink()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Refuses another model's checkpoint; keeps what the loop takes up."""
        checkpoint.get("meta", {}).pop("config", None)  # mmengine's resume would run it as Python
        check_weights(runner.model, checkpoint, str(runner._load_from))
        if runner._resume:
            reached = checkpoint["meta"]["iter"]
            resume.take_up(runner, checkpoint)
            self.start_teacher = resume.leaves_out_start(runner, reached, checkpoint["meta"])
            self._forget_absent(checkpoint["message_hub"])

    def _forget_absent(self, hub: dict[str, Any]) -> None:
        """Drops each best value whose file is not here: the checkpoint is of another folder."""
        for name in [each for each in hub["runtime_info"] if each.startswith("best_")]:
            if not (self.folder / f"{name}.pth").exists():
                del hub["runtime_info"][name]
                hub["resumed_keys"].pop(name, None)


def on_host(value: Any) -> Any:
    """A copy that nobody else holds: tensors in host memory, containers as plain dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        copies = {key: on_host(each) for key, each in value.items()}
        metadata = getattr(value, "_metadata", None)  # of a module's state_dict
        if metadata is None:
            return copies
        ordered = OrderedDict(copies)
        ordered._metadata = metadata  # type: ignore[attr-defined]
        return ordered
    if isinstance(value, (list, tuple)):
        return type(value)(on_host(each) for each in value)
    return value


def load(path: str | os.PathLike[str], lazily: bool = False) -> dict[str, Any]:
    """The content of a checkpoint file, on the host; UserError if missing or no checkpoint.

    lazily: for who needs little of it; its tensors are read from the file when they are used.
    """
    if not Path(path).is_file():
        raise UserError(f"checkpoint {path} does not exist: give the path of a .pth file")
    path = Path(path)
    try:
        content = safe_load.read(path, lazily=lazily)
    except UserError as error:
        raise UserError(f"checkpoint {error.one_line}{_others(path)}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or "the file is empty"
        raise UserError(
            f"checkpoint {path} can't be read ({reason}): is it complete?{_others(path)}"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        raise UserError(f"checkpoint {path} has no state_dict: it was not written by a training run")
    return content


def _others(path: Path) -> str:
    """Which kept checkpoints stand beside one that is broken; empty for none."""
    others = [str(each) for each in sorted(path.parent.glob(KEPT)) if not each.samefile(path)]
    return f"; whole ones may be {', '.join(others)}" if others else ""


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
