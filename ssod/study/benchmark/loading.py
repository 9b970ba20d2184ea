"""How fast the config's loader makes batches, apart from any step."""

import time
from typing import Any

from mmengine.config import Config

from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.runner import SemiRunner
from ssod.study.benchmark.batches import with_counts


def measure(config: Config, counts: tuple[int, ...], num_batches: int) -> dict[str, Any]:
    """Images/s of the loader with its own number of workers, and seconds a batch.

    The batches that the workers have ready before anyone asks are not counted: the clock starts after the
    first one, and then as many are drawn as `num_batches` and all that workers work ahead. An image in two
    views counts once.
    """
    loader = with_counts(config, counts)
    for name in ("num_workers", "prefetch_factor"):
        if name in config.train_dataloader:
            loader[name] = config.train_dataloader[name]
    with mistakes_in_config():
        built = SemiRunner.build_dataloader(loader, seed=0)
    ahead = (built.prefetch_factor or 0) * built.num_workers
    batches = iter(built)
    next(batches)
    began = time.perf_counter()
    for _ in range(num_batches + ahead):
        next(batches)
    seconds = (time.perf_counter() - began) / (num_batches + ahead)
    return {
        "workers": built.num_workers,
        "batches": num_batches + ahead,
        "seconds_per_batch": seconds,
        "images_per_second": sum(counts) / seconds,
    }
