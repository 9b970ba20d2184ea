"""Times a method's step against a supervised one: `python tools/bench_step.py CONFIG`; see --help."""

import argparse
import logging
import sys
import time
from statistics import median
from typing import Any

from ssod.cli import exit_code
from ssod.errors import UserError


def measure(config: Any, checkpoint: str | None, rounds: int) -> None:
    """Prints medians over `rounds` rounds, the ratio's over the ratios of each round."""
    import torch
    from mmengine.optim import build_optim_wrapper
    from mmengine.runner import Runner

    from ssod.engine import checkpoints
    from ssod.registry import MODELS

    if not config.model.get("method"):
        raise UserError("this config has no model.method: there is nothing to compare with a supervised step")
    model = MODELS.build(config.model).to("cuda" if torch.cuda.is_available() else "cpu")
    model.init_weights()
    model.start()
    if checkpoint:
        content = checkpoints.load(checkpoint)
        checkpoints.check_weights(model, content, checkpoint)
        model.load_state_dict(content["state_dict"])
    model.train().set_step(config.train_cfg.max_iters)  # behind every burn-in and ramp
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    loader = {**config.train_dataloader, "num_workers": 0, "persistent_workers": False}
    size, counts, method = loader["batch_size"], loader["sampler"]["counts"], config.model.method.type
    labeled, sampler = loader["dataset"]["datasets"][0], {**loader["sampler"], "counts": (size,)}
    plain = {**loader, "dataset": labeled, "sampler": sampler}
    sources = [iter(Runner.build_dataloader(each, seed=0)) for each in (plain, loader)]
    seconds: tuple[list[float], list[float]] = ([], [])
    boxes = []
    for turn in range(rounds + 1):
        for which in (0, 1) if turn % 2 else (1, 0):
            batch = next(sources[which])
            began = time.perf_counter()
            losses = model.train_step(batch, optimizer)
            if which == 1:
                model.after_step(config.train_cfg.max_iters)
                boxes.append(losses.get("num_boxes_candidates"))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[which].append(time.perf_counter() - began)
    supervised, semi = (each[1:] for each in seconds)  # the first round warms up
    found = "" if None in boxes else f", {sum(map(float, boxes)) / len(boxes):.1f} candidates an image"
    print(f"supervised, {size} labeled images: {median(supervised):.3f} s a step")
    print(f"{method}, {' + '.join(map(str, counts))} images: {median(semi):.3f} s a step{found}")
    ratio = median(b / a for a, b in zip(supervised, semi, strict=True))
    print(f"ratio {ratio:.2f}: median of {rounds} rounds, {torch.get_num_threads()} threads")


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        description="Seconds of a step (preprocessing, losses, backward, optimizer, EMA; not the loader) and "
        "of a supervised step of the same student on as many labeled images, in turns in one process."
    )
    parser.add_argument("config", help="a config with a method, such as configs/soft_teacher/shapes.py")
    parser.add_argument("--checkpoint", help="weights to start from; random ones find no pseudo boxes")
    parser.add_argument("--rounds", type=int, default=10, help="default: 10, after one that doesn't count")
    arguments = parser.parse_args(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints."""
    from ssod.engine.config import load_config
    from ssod.registry import register_all_modules

    register_all_modules()
    logging.disable(logging.INFO)  # mmengine says of each weight how it was initialised
    measure(load_config(arguments.config), arguments.checkpoint, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
