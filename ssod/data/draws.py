"""Augmentation that draws the same however it is loaded: every image begins from generators of its own.

mmengine seeds each loader worker from its number, so the views of a run change with `num_workers`, and those
of a resumed run begin anew. Here the sampler says of each index which draw of the run it is (seed, iteration,
rank, place in the batch), and the dataset makes it with generators seeded from that and from nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from ssod.data.bad_images import too_narrow
from ssod.data.generators import set_generators, state_of_generators
from ssod.registry import DATASETS, TRANSFORMS

_KEY: ContextVar[tuple[int, ...]] = ContextVar("key", default=())  # of the block that `seeded` runs now
_STREAMS = 2**31  # where what a batch shares is numbered from: no place in a batch is as large


class Draw(int):
    """An index into a dataset that knows which draw it is: `key`, the seed, iteration, rank and place."""

    key: tuple[int, ...]

    def __new__(cls, index: int, key: tuple[int, ...]) -> Draw:
        """The index, with its key."""
        draw = super().__new__(cls, index)
        draw.key = key
        return draw

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:  # type: ignore[override]
        return int(self), self.key


@contextmanager
def seeded(key: tuple[int, ...]) -> Iterator[None]:
    """A block whose random numbers are a function of `key`; the generators are as before when it ends.

    Python's, NumPy's and torch's on the host; a device's is training's own. Costs about 0.1 ms.
    """
    words = np.random.SeedSequence(key).generate_state(6)
    before = state_of_generators()
    random.seed(int(words[0]))
    np.random.seed(words[1:5])
    # Not torch.manual_seed: it would reach the devices' generators.
    torch.default_generator.manual_seed(int(words[5]))
    token = _KEY.set(key)
    try:
        yield
    finally:
        _KEY.reset(token)
        set_generators(before)


@TRANSFORMS.register_module()
class BatchResize:
    """A resize whose scale is drawn once for all images of a batch, so that little of the batch is padding.

    resize: the config of the resize, `RandomResize` say · stream: views with the same number, labeled and
    strong ones for instance, share what is drawn. Images that no `Draw` asked for are drawn one by one.
    """

    def __init__(self, resize: Mapping[str, Any], stream: int = 0) -> None:
        self.resize: Any = TRANSFORMS.build(dict(resize))
        self.stream = stream

    def __call__(self, results: dict[str, Any]) -> Any:
        *batch, _ = _KEY.get() or (0,)
        if not batch:
            return self.resize(results)
        with seeded((*batch, _STREAMS + self.stream)):
            return self.resize(results)


@DATASETS.register_module()
class SeededDraws(Dataset[Any]):
    """A dataset whose item depends on the `Draw` it is asked for and not on what was drawn before.

    dataset: the config of the dataset. An index that is no `Draw` is passed on as it is. Everything else the
    dataset has (metainfo, sizes, parts, ...) is had from here, too.
    """

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        self.dataset: Any = DATASETS.build(dict(dataset))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, Draw):
            return self._item(index)
        with seeded(index.key):
            return self._item(int(index))

    def _item(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except cv2.error as error:
            raise too_narrow(error, self.dataset.get_data_info(index)["img_path"]) from None

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):  # not there yet, or a question of pickle and copy
            raise AttributeError(name)
        return getattr(self.dataset, name)
