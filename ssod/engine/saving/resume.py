"""What a checkpoint holds beside mmengine's keys, so that a run goes on to the bit, or on other processes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import all_gather_object, get_rank, get_world_size

from ssod.engine.evaluate import unwrap
from ssod.engine.recipe.step_size import Size
from ssod.engine.saving import random_state, rates
from ssod.errors import UserError


def size_of(runner: Any) -> Size:
    """How many images go into an iteration of a run."""
    return Size.of(runner.cfg, get_world_size())


def capture(runner: Any, iteration: int) -> dict[str, Any]:
    """State after `iteration` iterations: random generators of every process, the sampler's position.

    All processes call it together.
    """
    state: dict[str, Any] = {"random_state": all_gather_object(random_state.capture())}
    sampler: Any = getattr(runner.train_dataloader, "sampler", None)
    if hasattr(sampler, "state_after"):
        state["sampler"] = sampler.state_after(iteration)
    return state


def take_up(runner: Any, checkpoint: dict[str, Any]) -> None:
    """Hands a checkpoint's state to the training loop, before mmengine reads the checkpoint.

    With as many images an iteration as before the run goes on to the bit, if it also has as many processes.
    Otherwise it goes on at the same number of images seen: `checkpoint` is changed to hold the iteration, and
    what this config has there. So with options of the optimizer and schedules that are not the checkpoint's.
    """
    loop = runner.train_loop
    loop.sampler_state = checkpoint.get("sampler")
    states = checkpoint.get("random_state")
    now = size_of(runner)
    before = _size_then(checkpoint["meta"], now)
    if before.world_size == now.world_size:
        loop.random_state = states[get_rank()] if isinstance(states, list) else states
    if (before.world_size, before.counts) != (now.world_size, now.counts):
        _move(runner, checkpoint, before, now)
    if rates.differ(runner, checkpoint) or before.an_iteration != now.an_iteration:
        rates.take_from_config(runner, checkpoint)


def burn_in_of(runner: Any) -> int:
    """How many iterations of a run are burn-in."""
    count: int = getattr(unwrap(runner.model), "burn_in", 0)
    return count


def leaves_out_start(runner: Any, reached: int, meta: Mapping[str, Any]) -> bool:
    """Whether a run whose teacher has yet to start as the student goes on beyond the iteration for that.

    reached: the checkpoint's iterations where it was written, with that run's burn-in; `meta` has those here.
    """
    now = burn_in_of(runner)
    started: bool = reached > meta.get("burn_in", now)
    return not started and meta["iter"] > now


def check_length(config: Config, source: Path, checkpoint: Mapping[str, Any]) -> None:
    """Raises UserError for a checkpoint beyond the config's last iteration, where both count the same images.

    Where they don't, `take_up` compares the images that were seen.
    """
    meta, now = checkpoint.get("meta", {}), Size.of(config, get_world_size())
    before, end = _size_then(meta, now), config.train_cfg.max_iters
    same = (before.world_size, before.counts) == (now.world_size, now.counts)
    if same and meta.get("iter", 0) > end:
        raise UserError(
            f"checkpoint {source} is of iteration {meta['iter']}, beyond this config's train_cfg.max_iters="
            f"{end}: raise that, or choose another --work-dir"
        )


def _size_then(meta: Mapping[str, Any], now: Size) -> Size:
    """How many images went into an iteration of the checkpoint's run; as now if it does not say."""
    saved = meta.get("size")
    return now if saved is None else Size(**{**saved, "counts": tuple(saved["counts"])})


def _move(runner: Any, checkpoint: dict[str, Any], before: Size, now: Size) -> None:
    """Brings a checkpoint to the iteration at which this run will have seen as many images."""
    meta, info = checkpoint["meta"], checkpoint["message_hub"]["runtime_info"]
    steps = round(meta["iter"] * before.an_iteration / now.a_step)
    iteration = steps * now.accumulative_counts
    if iteration >= runner.max_iters:
        raise UserError(
            f"checkpoint {runner._load_from} has seen {meta['iter'] * before.an_iteration} images, and this "
            f"config's {runner.max_iters} iterations of {now} images see no more: give --scale-to or raise "
            "train_cfg.max_iters"
        )
    runner.moved = (meta["iter"], iteration)
    if "validated_iter" in info:
        info["validated_iter"] = round(info["validated_iter"] * iteration / meta["iter"])
    text = (
        f"resumed with {now} images an iteration, where the checkpoint had {before}: iteration "
        f"{meta['iter']} becomes {iteration}, at {iteration * now.an_iteration} images seen; not to the bit "
        "what it would have been, and the learning rate is this config's (--scale-to fits it)"
    )
    meta["iter"] = iteration
    runner.logger.warning(text)
    runner.call_hook("after_notice", text=text)
