"""How fast the config's loader makes batches, apart from any step."""

import time
from typing import Any

from mmengine.config import Config

from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.runner import SemiRunner
from ssod.study.benchmark.batches import with_counts


def measure(config: Config, counts: tuple[int, ...], num_batches: int) -> dict[str, Any]:
    """Images/s of the loader with its own number of workers, and seconds a batch.

    The batches that the workers have ready before anyone asks are not counted: the clock starts when all
    they work ahead has been drawn. Workers deliver in bursts, so at least two batches of each are drawn, and
    equally many. An image in two views counts once.
    """
    loader = with_counts(config, counts)
    for name in ("num_workers", "prefetch_factor"):
        if name in config.train_dataloader:
            loader[name] = config.train_dataloader[name]
    with mistakes_in_config():
        built = SemiRunner.build_dataloader(loader, seed=0)
    ahead = (built.prefetch_factor or 0) * built.num_workers
    batches = iter(built)
    workers = max(1, built.num_workers)
    timed = max(2, -(-num_batches // workers)) * workers
    for _ in range(1 + ahead):
        next(batches)
    began = time.perf_counter()
    for _ in range(timed):
        next(batches)
    seconds = (time.perf_counter() - began) / timed
    return {
        "workers": built.num_workers,
        "batches": timed,
        "seconds_per_batch": seconds,
        "images_per_second": sum(counts) / seconds,
    }
