"""What is built before anything is measured: config, model, batches, pseudo boxes."""

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ssod.engine.config import load_config
from ssod.engine.records import result
from ssod.engine.testing import silence
from ssod.errors import UserError
from ssod.registry import register_all_modules
from ssod.study.benchmark import batches, lively, ours
from ssod.study.benchmark.settings import Settings


@dataclass
class Prepared:
    """Everything that is built before anything is measured."""

    settings: Settings
    config: Config
    model: Any
    batches: batches.Batches
    notes: list[str]


@contextmanager
def opened(settings: Settings, ratio: int = 0) -> Iterator[Config]:
    """A block with the config as it is measured: its precision set, its images drawn if they are to be.

    ratio: the most unlabeled images for each labeled one that will be asked for, where the batch has fewer.
    Drawn images lie in a folder that goes with the block.
    """
    register_all_modules()
    silence()
    threads = torch.get_num_threads()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    config = load_config(settings.config, settings.options)
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if settings.drawn:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ssod-benchmark-"))
            labeled, *unlabeled = batches.chosen_counts(config, settings.batch)
            counts = (labeled, *(max(each, labeled * ratio) for each in unlabeled))
            batches.draw(config, Path(folder, "images"), counts)
        ours.set_precision(config, settings.amp, settings.on)
        yield config


@contextmanager
def prepared(settings: Settings) -> Iterator[Prepared]:
    """A block with a model that finds boxes, and its batches."""
    with opened(settings) as config:
        if not config.model.get("method") and settings.against is None:
            raise UserError(
                f"config {settings.config} has no model.method, so there is nothing to compare: "
                "add --against mmdet, or give the config of a method"
            )
        model = ours.build(config, settings)
        counts = batches.chosen_counts(config, settings.batch)
        loaded = batches.load(config, counts, settings.size, model.method)
        notes: list[str] = []
        if not settings.checkpoint:
            settle(model, loaded, settings, notes)
        yield Prepared(settings, config, model, loaded, notes)


def settle(model: Any, loaded: batches.Batches, settings: Settings, notes: list[str]) -> None:
    """Trains a little and sets the heads, so that the unlabeled images have pseudo boxes."""
    torch.manual_seed(0)
    ours.warm(model, loaded.supervised, settings.warm_steps)
    semi = model.data_preprocessor(batches.fresh(loaded.semi or loaded.supervised), True)["inputs"]
    lively.make_lively(model, semi, settings.boxes)
    before = getattr(model.method, "box_max_spread", None)
    after = lively.widen_spread(model, semi)
    if after is not None and after != before:
        notes.append(
            f"box_max_spread is {after:.3f} instead of {before}, for mmdet's step as well: this detector has "
            "learned too little to move jittered boxes back"
        )


def device_name(device: str) -> str:
    """What is measured on: the GPU's name, or how many threads of a CPU."""
    return result.device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def waiting_for(device: str) -> Callable[[], object]:
    """What returns when the device has nothing left to do."""
    return torch.cuda.synchronize if device == "cuda" else _nothing


def clock_of(settings: Settings) -> Callable[[], float]:
    """The clock that steps are timed by."""
    return time.process_time if settings.clock == "processor" else time.perf_counter


def _nothing() -> None:
    """Nothing: a CPU has done what was asked of it."""
