"""The state of all random generators of this process: taken, put back, or kept through a block."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """The state of Python's, NumPy's, torch's and each CUDA device's generator, as values and tensors."""
    state: Any = np.random.get_state()
    kind, words, *rest = state
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(words.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def restore(state: dict[str, Any]) -> None:
    """Puts the generators back to a state that `capture` returned; other devices are left alone."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, words, *rest = state["numpy"]
    np.random.set_state((kind, np.asarray(words.cpu(), dtype=np.uint32), *rest))
    # A checkpoint's tensors may have been loaded to a device; these states live on the host.
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0].cpu())


@contextmanager
def preserved() -> Iterator[None]:
    """A block after which the generators are where they were before: training can't notice it."""
    state = capture()
    try:
        yield
    finally:
        restore(state)


def seed_all(seed: int) -> None:
    """Sets Python's, NumPy's and torch's generators; meant for use within `preserved`."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
