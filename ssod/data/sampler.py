"""Batches with a fixed number of images from each source: labeled, unlabeled, or any others."""

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from ssod.data.draws import Draw
from ssod.data.image_index import Records
from ssod.errors import UserError
from ssod.registry import DATA_SAMPLERS

IndexArray = npt.NDArray[np.int64]


class _Cell:
    """The images of one source and one orientation, passed through in a new order each time."""

    def __init__(self, indices: IndexArray) -> None:
        self.indices = indices
        self.size = len(indices)
        self.passes = 0  # how often the queue was filled
        self.queue: list[int] = []  # the rest of this pass, taken from the end
        self.used: list[int] = []  # taken in this step, over all ranks

    def fill(self, generator: np.random.Generator) -> None:
        """Starts a pass; what this step has already taken comes last, so nothing comes twice."""
        order: list[int] = generator.permutation(self.indices).tolist()
        used = set(self.used)
        if used:
            order = [i for i in order if i in used] + [i for i in order if i not in used]
        self.queue = order
        self.passes += 1


class _Source:
    """One dataset: a single cell, or a landscape and a portrait cell that keep pace."""

    def __init__(self, count: int, cells: list[_Cell]) -> None:
        self.count = count
        self.cells = cells
        self.size = sum(cell.size for cell in cells)

    @property
    def landscape_share(self) -> float:
        """The part of the images in the first cell, in [0, 1]."""
        return self.cells[0].size / self.size

    def left_in_pass(self) -> list[int]:
        """How many images each cell has left of the pass that the source as a whole is in."""
        behind = min(cell.passes for cell in self.cells)
        left = [len(cell.queue) if cell.passes == behind else 0 for cell in self.cells]
        if any(left):
            return left
        # That pass is over; a cell that ran ahead has begun the next one already.
        return [cell.size if cell.passes == behind else len(cell.queue) for cell in self.cells]

    def take(self, orientation: int, generator: np.random.Generator) -> list[int]:
        """`count` indices, of the wanted orientation as far as the cells stay within one pass."""
        cell = self.cells[orientation if len(self.cells) > 1 else 0]
        # The usual case at once: a resume draws some hundred thousand batches.
        if self.count <= len(cell.queue) and len(cell.used) + self.count <= cell.size:
            taken = cell.queue[-self.count :]
            del cell.queue[-self.count :]
            cell.used += taken
            return taken
        return [self._take_one(cell, generator) for _ in range(self.count)]

    def _take_one(self, wanted: _Cell, generator: np.random.Generator) -> int:
        """One index: from `wanted` if that is fresh and fair, else from the other cell."""
        others = [cell for cell in self.cells if cell is not wanted]
        behind = min(cell.passes for cell in self.cells)
        candidates = [wanted, *others]
        fair = [cell for cell in candidates if cell.queue or cell.passes == behind]
        fresh = [cell for cell in candidates if len(cell.used) < cell.size]
        # Fairness before freshness: a cell smaller than the step may give an image twice.
        cell = next((cell for cell in fair if cell in fresh), fair[0])
        if not cell.queue:
            cell.fill(generator)
        index = cell.queue.pop()
        cell.used.append(index)
        return index


@DATA_SAMPLERS.register_module()
class LabeledUnlabeledSampler(Sampler[int]):
    """An endless stream of indices; each `sum(counts)` in a row are a batch, source after source.

    The sources are the children of a `ConcatDataset`; any other dataset is one source, so that
    supervised training draws in the same way. In a config::

        sampler=dict(type="LabeledUnlabeledSampler", counts=(1, 4)), batch_size=5

    **Passes.** Each source is shuffled without replacement, pass after pass of its own.

    **Orientation.** Where possible all images of a batch are landscape (w >= h) or all portrait,
    which saves padding. The first source that has both decides: it draws as if from one shuffled
    deck. Another source with both follows, except as often as its own share of landscape images
    demands otherwise (a maximal coupling: of all faithful ways, the one with the fewest mixed
    batches, namely |difference of the shares|). Nor may a cell (source x orientation) run more than
    one pass ahead of the other. So in the long run every image of a source comes equally often:
    when each has come p times, none has come more than p + 1 times, and at any time the visits of
    two images differ by at most two (by one within an orientation). The bias that stays: images of
    a batch are not independent, which is what grouping means. A source with one orientation only,
    or with unknown sizes, joins any batch.

    **Ranks.** All ranks draw the same stream; a step takes one batch for each rank, and within a
    step no image comes twice, unless a source or one of its orientations holds fewer images than
    the step needs.

    **Resume.** The stream is a function of the seed, the dataset, the counts and the world size.
    A checkpoint holds its position (`state_after`), so a resumed run draws nothing again; it may go on
    with other counts or on another number of processes. `skip` draws anew up to a position.

    **Draws.** Each index is a `Draw` (ssod/data/draws.py): it names the seed, the iteration, the rank and
    the place in the batch, from which `SeededDraws` makes the image's views.

    **Length.** There is none. An epoch loop asks for one when built and gets a `UserError`.

    Leave the DataLoader's `batch_sampler` unset: one that regroups indices would undo the counts.

    Args:
        dataset: what the DataLoader reads; mmengine passes it.
        counts: images from each source in one rank's batch, at least 1 each.
        batch_size: optional, to have the DataLoader's number checked against `sum(counts)`.
        group_by_orientation: False draws from each source without regard to orientation.
        seed: mmengine passes the run's; None draws one that all ranks share.
        rank, world_size: mmengine's by default.

    Raises:
        UserError: counts that don't fit the sources or the batch, or an empty source.
    """

    def __init__(
        self,
        dataset: Sized,
        counts: Sequence[int],
        batch_size: int | None = None,
        group_by_orientation: bool = True,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        children: list[Any] = list(getattr(dataset, "datasets", [dataset]))
        _check(children, counts, batch_size)
        own_rank, own_world_size = get_dist_info()
        self.rank: int = own_rank if rank is None else rank
        self.world_size: int = own_world_size if world_size is None else world_size
        if not 0 <= self.rank < self.world_size:
            raise UserError(f"sampler: rank {self.rank} is not in 0..{self.world_size - 1}")
        self.counts = tuple(counts)
        self.batch_size = sum(counts)
        self.seed: int = sync_random_seed() if seed is None else seed
        starts = np.cumsum([0, *(len(child) for child in children)])
        self._layout: list[tuple[int, list[IndexArray]]] = [
            (count, [cell + start for cell in _cells_of(child, group_by_orientation)])
            for count, child, start in zip(counts, children, starts[:-1], strict=True)
        ]
        self._asked_for_indices = False
        self._origin: dict[str, Any] | None = None  # the state that was taken up
        self._follower: LabeledUnlabeledSampler | None = None  # where training is: `state_after`
        self._restart()

    def _restart(self) -> None:
        """Puts the stream back to its beginning."""
        self._generator = np.random.Generator(np.random.PCG64(self.seed))
        self._sources = [_Source(n, [_Cell(c) for c in cells]) for n, cells in self._layout]
        self._leader = next((s for s in self._sources if len(s.cells) > 1), None)
        self._pending: list[int] = []  # the rest of a batch that was begun, in reverse
        self._batches = 0  # that were drawn, the begun one included

    def _next_batch(self) -> list[int]:
        """This rank's next batch of indices, drawn with those of all other ranks."""
        for source in self._sources:
            for cell in source.cells:
                cell.used.clear()
        batches = [self._draw_batch() for _ in range(self.world_size)]
        self._batches += 1
        return batches[self.rank]

    def _draw_batch(self) -> list[int]:
        """One batch of indices, of one orientation where that is possible and fair."""
        orientation = 0
        if self._leader is not None:
            left = self._leader.left_in_pass()
            orientation = int(self._generator.random() * sum(left) >= left[0])
        batch: list[int] = []
        for source in self._sources:
            follow = orientation if self._follows(source, orientation) else 1 - orientation
            batch += source.take(follow, self._generator)
        return batch

    def _follows(self, source: _Source, orientation: int) -> bool:
        """Whether a source takes the batch's orientation: always, if its share is not smaller."""
        if self._leader is None or source is self._leader or len(source.cells) == 1:
            return True
        shares = source.landscape_share, self._leader.landscape_share
        own, leading = shares if orientation == 0 else (1 - shares[0], 1 - shares[1])
        return own >= leading or bool(self._generator.random() * leading < own)

    def __iter__(self) -> Iterator[int]:
        """The stream from where it stands; a second iterator goes on, it doesn't start again."""
        self._asked_for_indices = True
        return self._stream()

    def _stream(self) -> Iterator[int]:
        """This rank's indices, without end."""
        while True:
            if not self._pending:
                self._pending = self._next_batch()[::-1]
            place = self.batch_size - len(self._pending)
            yield Draw(self._pending.pop(), (self.seed, self._batches - 1, self.rank, place))

    def __len__(self) -> int:
        """The largest number Python allows, for an endless stream; `UserError` before it has begun.

        mmengine asks in two situations. Before training, to count the iterations of an epoch (epoch
        loop, scheduler in epochs): there is no answer, and the made-up one of mmdet's samplers is
        why such a loop never ends and never validates. And its logger asks after each iteration
        whether this was the last batch: for that, a length never reached is the right answer.
        """
        if not self._asked_for_indices:
            raise UserError(
                "train_dataloader: the stream of labeled and unlabeled images has no epochs; "
                "count in iterations: an IterBasedTrainLoop with max_iters, "
                "schedulers with by_epoch=False"
            )
        return sys.maxsize

    def skip(self, num_samples: int) -> None:
        """Moves to the position after `num_samples` of this rank's indices, counted from the start.

        The contract of mmengine's `InfiniteSampler.skip`: absolute, in indices, not batches.
        """
        if num_samples < 0 or num_samples % self.batch_size:
            raise UserError(
                f"sampler: can't skip {num_samples} indices: no whole number of batches; "
                f"set the dataloader's batch_size to sum(counts) = {self.batch_size}"
            )
        self._restart()
        for _ in range(num_samples // self.batch_size):
            self._next_batch()

    def state_after(self, num_batches: int) -> dict[str, Any]:
        """The position after that many of this rank's batches, however far the loader has read ahead.

        A second stream follows the training from checkpoint to checkpoint, so this costs what drawing the
        indices of one interval costs.
        """
        if self._follower is None or self._follower._batches > num_batches:
            self._follower = self._at_origin()
        while self._follower._batches < num_batches:
            self._follower._next_batch()
        return self._follower.state_dict()

    def _at_origin(self) -> "LabeledUnlabeledSampler":
        """A second sampler, where this one's stream began or was taken up."""
        follower = copy.copy(self)
        follower._restart()
        if self._origin is not None:
            follower._take(self._origin)
        return follower

    def state_dict(self) -> dict[str, Any]:
        """The exact position, in plain numbers and tensors.

        It is the sampler's own: with loader workers that is ahead of training by what they have
        fetched in advance; `state_after` is where training is.
        """
        cells = [cell for source in self._sources for cell in source.cells]
        return {
            "layout": self._signature(),
            "generator": self._generator.bit_generator.state,
            "pending": list(self._pending),
            "batches": self._batches,
            "cells": [
                {"passes": cell.passes, "queue": torch.tensor(cell.queue, dtype=torch.int64)}
                for cell in cells
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any], num_batches: int | None = None) -> None:
        """Goes on where `state_dict` was taken; `UserError` if with other data.

        With other counts or another number of processes the stream goes on from there in other batches, of
        which `num_batches` are then taken to be behind it (by default as many as were drawn).
        """
        saved, ours = state["layout"], self._signature()
        if saved["sizes"] != ours["sizes"]:
            raise UserError(
                f"sampler: the saved state is of datasets with {saved['sizes']} images by orientation, this "
                f"run has {ours['sizes']}; resume with the same data, or begin anew with load_from"
            )
        if saved != ours and state["pending"]:
            raise UserError(
                "sampler: the saved state is within a batch; other counts begin after a whole one"
            )
        batches = state["batches"] if num_batches is None else num_batches
        self._origin = {**state, "batches": batches}
        self._follower = None
        self._restart()
        self._take(self._origin)

    def _take(self, state: Mapping[str, Any]) -> None:
        """Puts a stream that has just begun to a saved position."""
        self._generator.bit_generator.state = state["generator"]
        self._pending = list(state["pending"])
        self._batches = state["batches"]
        cells = [cell for source in self._sources for cell in source.cells]
        for cell, saved in zip(cells, state["cells"], strict=True):
            cell.passes, cell.queue = saved["passes"], saved["queue"].tolist()

    def _signature(self) -> dict[str, Any]:
        """What two samplers must share for a state to fit both."""
        sizes = [[cell.size for cell in source.cells] for source in self._sources]
        return {"counts": list(self.counts), "sizes": sizes, "world_size": self.world_size}


def _check(children: list[Any], counts: Sequence[int], batch_size: int | None) -> None:
    """Raises a `UserError` unless every source has images and at least one slot in the batch."""
    if len(counts) != len(children):
        raise UserError(
            f"sampler: counts={tuple(counts)}: {len(counts)} for {len(children)} datasets; "
            "give one count for each dataset of the ConcatDataset"
        )
    for number, (child, count) in enumerate(zip(children, counts, strict=True)):
        name = f"dataset {number} ({getattr(child, 'ann_file', '') or type(child).__name__})"
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UserError(
                f"sampler: counts={tuple(counts)} gives {name} {count!r} images per batch; "
                "every dataset needs a whole number of at least 1: raise it, or drop the dataset"
            )
        if len(child) == 0:
            raise UserError(f"sampler: {name} has no images; check its ann_file, data_prefix and filter_cfg")
    if batch_size is not None and batch_size != sum(counts):
        raise UserError(
            f"sampler: batch_size={batch_size} but counts={tuple(counts)} sum to {sum(counts)}; "
            "make them equal"
        )


def _cells_of(dataset: Any, group_by_orientation: bool) -> list[IndexArray]:
    """Positions by orientation, landscape first; all in one cell if they are alike or unknown."""
    everything = np.arange(len(dataset))
    landscape = _is_landscape(dataset) if group_by_orientation else None
    if landscape is None or landscape.all() or not landscape.any():
        return [everything]
    return [everything[landscape], everything[~landscape]]


def _is_landscape(dataset: Any) -> npt.NDArray[np.bool_] | None:
    """For each image whether w >= h, as (N,) bool; None if the dataset doesn't know its sizes."""
    if not hasattr(dataset, "get_data_info"):
        return None
    plain = getattr(dataset, "data_list", None)
    if isinstance(plain, Records):  # a million of them at once
        return np.asarray(plain.sizes[:, 0] >= plain.sizes[:, 1])
    # Datasets that keep plain lists would deep-copy each entry with all its boxes on every access.
    plain = plain or []
    read = plain.__getitem__ if len(plain) == len(dataset) else dataset.get_data_info
    result = np.empty(len(dataset), dtype=np.bool_)
    for index in range(len(dataset)):
        info = read(index)
        width, height = info.get("width"), info.get("height")
        if not width or not height:
            return None
        result[index] = width >= height
    return result
