"""The guard against nan and inf: steps that were left out are counted, explained, and end a run if many."""

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from torch import Tensor

from ssod.engine.evaluate import unwrap
from ssod.engine.faults.running_statistics import RunningStatistics
from ssod.engine.optim import GuardedOptimWrapper
from ssod.engine.records.result import DIVERGED, write_json
from ssod.errors import RunError, UserError
from ssod.registry import HOOKS

SHOWN = 4  # image paths in the error's line; the file has all
_TOTAL, _IN_A_ROW = "bad_steps", "bad_steps_in_a_row"  # in a checkpoint's message hub


class DivergedError(RunError):
    """Training gave values that are not finite, several steps in a row."""


@HOOKS.register_module()
class FiniteGuard(Hook):  # type: ignore[misc]
    """Counts steps whose loss or gradient is not finite; ends a run after `max_bad_steps` in a row.

    Such steps change nothing (`GuardedOptimWrapper` leaves them out and counts them), so a look now and then
    is enough: on a CPU it costs nothing and happens every step, elsewhere every `interval` steps, and every
    step once something was found. What is looked at is the norm of the gradient, which all processes share,
    so that they reach the same verdict in the same step. Where the run ends, `diverged.json` in the work dir
    has the losses and the images of those steps, of every process.

    Both counts go into checkpoints; `bad_steps` is in result.json. In float16 a gradient that only overflowed
    through the loss scale is counted there, too, but never ends a run: the scale gets smaller until it fits.
    """

    priority = "VERY_HIGH"

    def __init__(self, max_bad_steps: int = 5, interval: int = 50) -> None:
        self.max_bad_steps = max_bad_steps
        self.interval = interval
        self.in_a_row = 0
        self.before = 0  # bad steps of the run before it was resumed
        self.seen = 0  # of the wrapper's steps
        self.batches: list[dict[str, Any]] = []  # since the last step: more than one where they accumulate
        self.row: list[dict[str, Any]] = []  # what is known of the bad steps in a row
        self.statistics: RunningStatistics | None = None

    def before_train(self, runner: Any) -> None:
        """Takes up a resumed run's counts; UserError for an optimizer wrapper that leaves no step out."""
        if not isinstance(runner.optim_wrapper, GuardedOptimWrapper):
            raise UserError(
                f"optim_wrapper {type(runner.optim_wrapper).__name__} takes steps along gradients that are "
                "not finite: use type='GuardedOptimWrapper', or set default_hooks.finite_guard=None"
            )
        self.before = runner.message_hub.get_info(_TOTAL, 0)
        self.in_a_row = runner.message_hub.get_info(_IN_A_ROW, 0)
        self.seen = runner.optim_wrapper.steps

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Keeps the running statistics as they are before the first step."""
        if self.statistics is None:
            self.statistics = RunningStatistics(unwrap(runner.model))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Counts a bad step and says what was bad; raises DivergedError after too many in a row."""
        if self.statistics is not None:
            self.statistics.settle()
        losses = {k: v.detach() for k, v in (outputs or {}).items() if isinstance(v, Tensor)}
        batch = {"iteration": runner.iter, "losses": losses, "images": image_paths(data_batch)}
        self.batches.append(batch)
        wrapper = runner.optim_wrapper
        if wrapper.steps == self.seen:  # the gradient is added up
            return
        self.seen = wrapper.steps
        due = wrapper.device == "cpu" or self.in_a_row or (wrapper.steps - 1) % self.interval == 0
        if due:
            self._look(runner, wrapper)
        self.batches = []

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Puts the counts where a resumed run finds them."""
        for key, value in ((_TOTAL, self._total(runner)), (_IN_A_ROW, self.in_a_row)):
            checkpoint["message_hub"]["runtime_info"][key] = value
            checkpoint["message_hub"]["resumed_keys"][key] = True

    def after_train(self, runner: Any) -> None:
        """Counts what nobody has looked at."""
        self._note(runner)

    def _total(self, runner: Any) -> int:
        # sync: where something is wrong, for a checkpoint, and at the end
        return self.before + int(runner.optim_wrapper.left_out)

    def _note(self, runner: Any) -> None:
        runner.message_hub.update_info(_TOTAL, self._total(runner))

    def _look(self, runner: Any, wrapper: Any) -> None:
        """The verdict on the last step."""
        if torch.isfinite(wrapper.grad_norm):  # sync: see the class
            self.in_a_row, self.row = 0, []
            return
        step = describe_step(runner, self.batches)
        if wrapper.scaler is not None and step["first_bad_loss"] is None and wrapper.scaler.get_scale() > 1:
            return
        self.in_a_row += 1
        self.row.append(step)
        self._note(runner)
        text = in_one_line(step)
        runner.call_hook("after_bad_step", text=text)
        if self.in_a_row < self.max_bad_steps:
            runner.logger.warning(f"step skipped: {text}")
            return
        path = Path(runner.work_dir, DIVERGED)
        error = DivergedError(
            f"training diverged: {self.in_a_row} steps in a row were not finite; {text}; losses and images "
            f"of each are in {path}; lower the learning rate, lengthen the warm-up or set "
            "optim_wrapper.clip_grad"
        )
        if is_main_process():
            with suppress(OSError):  # the error matters more
                write_json(path, {"error": str(error), "bad_steps": self._total(runner), "steps": self.row})
        raise error


def describe_step(runner: Any, batches: list[dict[str, Any]]) -> dict[str, Any]:
    """What is known of a bad step, of all processes: the same on each of them, and fit for JSON.

    batches: `{iteration, losses, images}` of this process, one for each iteration since the step before.
    All processes must ask in the same step.
    """
    ours = [{**each, "losses": {k: _number(v) for k, v in each["losses"].items()}} for each in batches]
    everyone = [
        {"process": rank, **batch} for rank, own in enumerate(all_gather_object(ours)) for batch in own
    ]
    terms = [
        {"name": name, "value": value, "process": batch["process"], "iteration": batch["iteration"]}
        for batch in everyone
        for name, value in batch["losses"].items()
        if isinstance(value, str)
    ]
    terms.sort(key=lambda term: term["name"] == "loss")  # the sum says least
    named = dict(unwrap(runner.model).named_parameters())
    bad = runner.optim_wrapper.first_bad_gradient()
    rates = {group["lr"] for group in runner.optim_wrapper.optimizer.param_groups}
    return {
        "iteration": runner.iter,
        "learning_rates": sorted(rates),
        "first_bad_loss": terms[0] if terms else None,
        "first_bad_parameter": next((k for k, v in named.items() if not torch.isfinite(v).all()), None),
        "first_bad_gradient": next((k for k, v in named.items() if v is bad), None),
        "batches": everyone,
    }


def in_one_line(step: Mapping[str, Any]) -> str:
    """Iteration, learning rate, first bad loss term, parameter and gradient, and some images."""
    term = step["first_bad_loss"]
    several = len({batch["process"] for batch in step["batches"]}) > 1
    said = f"{term['name']} is {term['value']}" if term else "none"
    said += f" (process {term['process']})" if term and several else ""
    # Of the process whose loss it was, the others' batches were fine, as far as one can tell.
    suspects = [each for each in step["batches"] if not term or each["process"] == term["process"]]
    images = [path for batch in suspects for path in batch["images"]]
    shown = ", ".join(images[:SHOWN]) + (f" and {len(images) - SHOWN} more" if len(images) > SHOWN else "")
    return (
        f"iteration {step['iteration']}, learning rate {'/'.join(f'{r:g}' for r in step['learning_rates'])}, "
        f"first bad loss term: {said}, first bad parameter: {step['first_bad_parameter'] or 'none'}, "
        f"first bad gradient: {step['first_bad_gradient'] or 'none'}{shown and f', images: {shown}'}"
    )


def image_paths(batch: Any) -> list[str]:
    """Where the images of a collated batch lie, each once; empty where its samples don't say."""
    views = batch.values() if isinstance(batch, Mapping) and "data_samples" not in batch else [batch]
    found: dict[str, None] = {}
    for view in views:
        samples = view.get("data_samples", ()) if isinstance(view, Mapping) else ()
        for sample in samples if isinstance(samples, (list, tuple)) else ():
            path = getattr(sample, "metainfo", {}).get("img_path")
            found |= {str(path): None} if path else {}
    return list(found)


def _number(value: Tensor) -> float | str:
    """The value for JSON, which knows no nan and no inf: those as words."""
    number = float(value.float().mean())  # sync: only called when something is wrong
    return number if math.isfinite(number) else str(number)
