"""What a checkpoint holds beside mmengine's keys, so that a run goes on to the bit, or on other processes."""

from dataclasses import dataclass
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size

from ssod.engine import random_state
from ssod.errors import UserError


@dataclass(frozen=True)
class Size:
    """How many images an iteration sees: `images` in each of `processes`."""

    processes: int
    images: int

    @property
    def total(self) -> int:
        """Images of all processes."""
        return self.processes * self.images

    @staticmethod
    def of(runner: Any) -> "Size":
        """That of a run."""
        return Size(get_world_size(), getattr(runner.train_dataloader, "batch_size", None) or 1)


def capture(runner: Any, iteration: int) -> dict[str, Any]:
    """State after `iteration` iterations: random generators of every process, the sampler's position.

    All processes call it together.
    """
    state: dict[str, Any] = {"random_state": all_gather_object(random_state.capture())}
    sampler = getattr(runner.train_dataloader, "sampler", None)
    if hasattr(sampler, "state_after"):
        state["sampler"] = sampler.state_after(iteration)
    return state


def take_up(runner: Any, checkpoint: dict[str, Any]) -> None:
    """Hands a checkpoint's state to the training loop, before mmengine reads the checkpoint.

    With as many images an iteration as before the run goes on to the bit, if it also has as many processes.
    Otherwise it goes on at the same number of images seen: `checkpoint` is changed to hold the iteration, the
    learning rate and the schedules that this config has there.
    """
    loop = runner.train_loop
    loop.sampler_state = checkpoint.get("sampler")
    states = checkpoint.get("random_state")
    before = Size(**checkpoint["meta"]["size"]) if "size" in checkpoint["meta"] else Size.of(runner)
    now = Size.of(runner)
    if before.processes == now.processes:
        loop.random_state = states[get_rank()] if isinstance(states, list) else states
    if before != now:
        _move(runner, checkpoint, before, now)


def _move(runner: Any, checkpoint: dict[str, Any], before: Size, now: Size) -> None:
    """Brings a checkpoint to the iteration at which this run will have seen as many images."""
    meta, info = checkpoint["meta"], checkpoint["message_hub"]["runtime_info"]
    iteration = round(meta["iter"] * before.total / now.total)
    if iteration >= runner.max_iters:
        raise UserError(
            f"checkpoint {runner._load_from} has seen {meta['iter'] * before.total} images, and this "
            f"config's {runner.max_iters} iterations of {_words(now)} see no more: give --scale-to or raise "
            "train_cfg.max_iters"
        )
    runner.moved = (meta["iter"], iteration)
    if info.get("validated_iter") == meta["iter"]:
        info["validated_iter"] = iteration
    if before.total != now.total:
        for _ in range(iteration):
            for scheduler in runner.param_schedulers or ():
                scheduler.step()
        checkpoint.pop("param_schedulers", None)
        fresh = runner.optim_wrapper.optimizer.param_groups
        for saved, group in zip(checkpoint["optimizer"]["param_groups"], fresh, strict=True):
            saved.update({key: value for key, value in group.items() if key != "params"})
    text = (
        f"resumed with {_words(now)} an iteration, where the checkpoint had {_words(before)}: iteration "
        f"{meta['iter']} becomes {iteration}, at {iteration * now.total} images seen; not to the bit what it "
        "would have been, and the learning rate is this config's (--scale-to fits it)"
    )
    meta["iter"] = iteration
    runner.logger.warning(text)
    runner.call_hook("after_notice", text=text)


def _words(size: Size) -> str:
    return f"{size.processes} x {size.images} images"
