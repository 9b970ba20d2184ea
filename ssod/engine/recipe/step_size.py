"""How many images go into a step: of a run, of the recipe it follows, and as `8x1+4` on a command line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mmengine.config import Config

from ssod.errors import UserError


@dataclass(frozen=True)
class Size:
    """How many images go into a step.

    world_size: processes · counts: images of each source in one process's batch, labeled first ·
    accumulative_counts: iterations that one optimizer step gathers.
    """

    world_size: int
    counts: tuple[int, ...]
    accumulative_counts: int = 1

    @staticmethod
    def parse(text: str) -> "Size":
        """The size that `8x1+4` (8 processes, each with 1 labeled and 4 unlabeled images) or `8x1` names."""
        found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)(?:\+([1-9]\d*))?", text.strip(), re.ASCII)
        if found is None:
            raise UserError(
                f"--scale-to {text!r}: give WORLDxLABELED+UNLABELED in whole numbers of at least 1, such as "
                "8x1+4 (8 processes, each with 1 labeled and 4 unlabeled images), or WORLDxLABELED"
            )
        world_size, *counts = (int(each) for each in found.groups() if each is not None)
        return Size(world_size, tuple(counts))

    @staticmethod
    def of(config: Config, world_size: int) -> "Size":
        """The size of a config as it stands, on a number of processes."""
        loader = config.train_dataloader
        counts = (loader.get("sampler") or {}).get("counts") or (loader.get("batch_size") or 1,)
        return Size(world_size, tuple(counts), config.optim_wrapper.get("accumulative_counts") or 1)

    def as_typed(self) -> str:
        """The text that `parse` reads, `8x1+4`."""
        return f"{self.world_size}x{'+'.join(map(str, self.counts))}"

    def __str__(self) -> str:
        """What is typed, and what is gathered: `1x1+4 with 8 iterations a step`."""
        gathered = self.accumulative_counts
        return self.as_typed() + (f" with {gathered} iterations a step" if gathered > 1 else "")

    @property
    def an_iteration(self) -> int:
        """Images of an iteration, over all processes."""
        return self.world_size * sum(self.counts)

    @property
    def a_step(self) -> int:
        """Images of an optimizer step, over all processes: the effective batch."""
        return self.an_iteration * self.accumulative_counts

    def images(self, iterations: int) -> str:
        """`LABELED + UNLABELED`, the images of some iterations over all processes."""
        return " + ".join(f"{self.world_size * count * iterations:,}" for count in self.counts)


def written_for(config: Config) -> Size | None:
    """The size that rate and schedule of a config are written for; None where it doesn't say.

    The config says `written_for=dict(world_size=8)`, the processes, and `accumulative_counts` (1 by
    default); images a process are its sampler's counts. Raises UserError for anything else.
    """
    given = config.get("written_for")
    if given is None:
        return None
    known = ("world_size", "accumulative_counts")
    numbers = given.values() if isinstance(given, Mapping) and "world_size" in given else (None,)
    good = all(isinstance(each, int) and not isinstance(each, bool) and each >= 1 for each in numbers)
    if not good or set(given) - set(known):
        raise UserError(
            f"written_for is {given!r}: give dict(world_size=...), and accumulative_counts=... if it is not 1"
        )
    return Size(given["world_size"], Size.of(config, 1).counts, given.get("accumulative_counts", 1))
