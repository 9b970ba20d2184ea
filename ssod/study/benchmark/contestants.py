"""Who is timed: a model, its batch, its optimizer, and the weights that every step starts from."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class Snapshot:
    """The weights and buffers of a model as they are now."""

    def __init__(self, model: nn.Module) -> None:
        self.tensors: list[Tensor] = list(model.state_dict().values())
        self.kept = [each.detach().clone() for each in self.tensors]

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the model back to them."""
        for tensor, kept in zip(self.tensors, self.kept, strict=True):
            tensor.copy_(kept)


@dataclass
class Contestant:
    """One whose steps are timed: preprocessing, forward, backward, clipping, optimizer step, average.

    data: a fresh batch in the model's own form · follow: lets a teacher follow, or None · around: a context
    for every step. Each step starts from the same weights, with the same seed, on the same batch; so the
    number of pseudo boxes stays what it is. The optimizer's state goes on; it changes no cost.
    """

    name: str
    model: Any
    optimizer: Any
    data: Callable[[], Any]
    snapshot: Snapshot
    num_images: int
    follow: Callable[[], object] | None = None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext

    def prepare(self, seed: int) -> None:
        """Puts weights back, copies the batch, seeds; none of it is part of a step."""
        self.snapshot.restore()
        self.batch = self.data()
        torch.manual_seed(seed)

    def step(self) -> dict[str, Tensor]:
        """The log of a training step, on the device."""
        with self.around():
            log: dict[str, Tensor] = self.model.train_step(self.batch, self.optimizer)
            if self.follow is not None:
                self.follow()
        return log
