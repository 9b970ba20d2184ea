"""Around each iteration: step number and EMA, scalars without stalls."""

import math
import time
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.hooks import Hook, RuntimeInfoHook
from torch import Tensor

from ssod.engine import optim
from ssod.engine.evaluate import unwrap
from ssod.registry import HOOKS


@HOOKS.register_module()
class RuntimeInfo(RuntimeInfoHook):  # type: ignore[misc]
    """mmengine's hook without its scalars, for each of which it waits for the device."""

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Notes the iteration where mmengine's and mmdet's parts look for it."""
        runner.message_hub.update_info("iter", runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Does nothing: `ScalarLog` keeps the scalars."""


@HOOKS.register_module()
class SemiHook(Hook):  # type: ignore[misc]
    """Tells the model the time: `start`, `set_step` before a step, `after_step` after it."""

    priority = "HIGH"

    def __init__(self) -> None:
        self.stepped = False

    def before_train(self, runner: Any) -> None:
        """Starts a fresh run's teacher, and listens for optimizer steps that are really taken."""
        if runner.iter == 0:
            unwrap(runner.model).start()
        # The optimizer alone knows: accumulation, loss scaling and the guard leave steps out.
        runner.optim_wrapper.optimizer.register_step_post_hook(self._note_step)

    def _note_step(self, *_: Any) -> None:
        self.stepped = True

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Hands the model its 0-based iteration."""
        unwrap(runner.model).set_step(runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Lets the teacher follow an optimizer step, never a skipped one; it counts optimizer steps."""
        if self.stepped:
            wrapper = runner.optim_wrapper
            taken = getattr(wrapper, "taken", None)
            unwrap(runner.model).after_step(
                runner.iter // optim.iterations_a_step(wrapper), *(() if taken is None else (taken,))
            )
        self.stepped = False


@HOOKS.register_module()
class ScalarLog(Hook):  # type: ignore[misc]
    """Means of the model's scalars over `interval` iterations, moved to the host once per interval.

    Hands them to every hook with an `after_scalars(runner, iteration, scalars)`: the console, the
    metrics file; and to mmengine's visualizer (TensorBoard, say).
    """

    priority = "BELOW_NORMAL"

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self.kept: list[dict[str, Any]] = []
        self.steps = 0  # of the interval, in this process: a resumed run has not timed the ones before
        self.waited = 0.0
        self.mark = 0.0

    def before_train(self, runner: Any) -> None:
        """Starts the clock."""
        self.mark = time.perf_counter()
        self.interval_start = self.mark

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Notes how long the loader let training wait."""
        self.waited += time.perf_counter() - self.mark

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keeps the step's scalars; at the interval, and at the end, gives out their means."""
        stepped = optim.at_optimizer_step(runner)
        norm = getattr(runner.optim_wrapper, "grad_norm", None) if stepped else None
        self.kept.append({**(outputs or {}), **({} if norm is None else {"grad_norm": norm})})
        self.steps += 1
        iteration = runner.iter + 1
        if iteration % self.interval == 0 or iteration == runner.max_iters:
            self._give_out(runner, iteration)
        self.mark = time.perf_counter()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Hands the AP of each network to the visualizer; the recorder has it from the loop."""
        finite = {key: value for key, value in (metrics or {}).items() if math.isfinite(value)}
        runner.visualizer.add_scalars(finite, step=runner.iter)

    def after_val(self, runner: Any) -> None:
        """Keeps the time of a validation out of the time of a step."""
        now = time.perf_counter()
        self.interval_start += now - self.mark
        self.mark = now

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Adds the scalars of the interval that is under way: a resumed run logs the same means."""
        checkpoint["scalars"] = on_host_together(self.kept)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Takes them up."""
        if runner._resume:
            self.kept = list(checkpoint.get("scalars", ()))

    def _give_out(self, runner: Any, iteration: int) -> None:
        scalars = means(self.kept)
        now = time.perf_counter()
        scalars["lr"] = runner.optim_wrapper.optimizer.param_groups[0]["lr"]
        scalars["seconds_per_step"] = (now - self.interval_start) / self.steps
        scalars["data_seconds_per_step"] = self.waited / self.steps
        if torch.cuda.is_available():
            scalars["memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
        self.kept, self.steps, self.waited, self.interval_start = [], 0, 0.0, now
        finite = {key: value for key, value in scalars.items() if math.isfinite(value)}
        runner.visualizer.add_scalars(finite, step=iteration)
        runner.call_hook("after_scalars", iteration=iteration, scalars=scalars)


def means(kept: Iterable[dict[str, Any]]) -> dict[str, float]:
    """The mean of each scalar over the dicts that have it, read from the device all at once."""
    columns: dict[str, list[Tensor]] = {}
    for scalars in kept:
        for key, value in scalars.items():
            columns.setdefault(key, []).append(torch.as_tensor(value).detach())
    if not columns:
        return {}
    averages = [torch.stack(column).float().mean() for column in columns.values()]
    device = next((each.device for each in averages if each.device.type != "cpu"), averages[0].device)
    # sync: once per log interval, for all scalars together.
    return dict(zip(columns, torch.stack([each.to(device) for each in averages]).tolist(), strict=True))


def on_host_together(kept: Iterable[dict[str, Any]]) -> list[dict[str, float]]:
    """The same dicts with plain numbers, read from the device all at once."""
    steps = list(kept)
    values = [torch.as_tensor(value).detach().float() for scalars in steps for value in scalars.values()]
    if not values:
        return [{} for _ in steps]
    device = next((each.device for each in values if each.device.type != "cpu"), values[0].device)
    # sync: once per checkpoint.
    numbers = iter(torch.stack([each.to(device) for each in values]).tolist())
    return [{name: next(numbers) for name in scalars} for scalars in steps]
