"""What LabeledUnlabeledSampler holds for any data: counts, ranks, passes, and that it never hangs."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Dataset

from ssod.data.sampler import LabeledUnlabeledSampler

SECONDS = 20  # one example takes some hundredths
RATIOS = [(1, 1), (1, 2), (1, 4), (1, 8), (4, 1), (2, 3)]


@contextmanager
def watchdog() -> Iterator[None]:
    """A block that fails instead of hanging."""

    def bark(*_: Any) -> None:
        raise TimeoutError(f"no batch after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_the_watchdog_barks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SECONDS", 0.05)
    with pytest.raises(TimeoutError, match="no batch"), watchdog():
        for _ in itertools.count():
            pass


class Images(Dataset[int]):
    """`landscape` wide images, then `portrait` tall ones."""

    def __init__(self, landscape: int, portrait: int) -> None:
        self.widths = [200] * landscape + [100] * portrait

    def __len__(self) -> int:
        return len(self.widths)

    def get_data_info(self, index: int) -> dict[str, int]:
        return {"width": self.widths[index], "height": 150}


def draws(
    sources: list[tuple[int, int]], counts: tuple[int, ...], world_size: int, steps: int, **options: Any
) -> np.ndarray:
    """Indices (steps, world_size, sum(counts)), as all ranks draw them."""
    dataset: ConcatDataset[int] = ConcatDataset([Images(*each) for each in sources])
    ranks = []
    for rank in range(world_size):
        sampler = LabeledUnlabeledSampler(dataset, counts, rank=rank, world_size=world_size, **options)
        indices = itertools.islice(iter(sampler), steps * sum(counts))
        ranks.append(np.fromiter(indices, int).reshape(steps, sum(counts)))
    return np.stack(ranks, axis=1)


def steps_for(size: int, count: int, world_size: int, passes: int = 4) -> int:
    return min(-(-size * passes // (count * world_size)) + 1, 400)


def of_source(batches: np.ndarray, counts: tuple[int, ...], number: int) -> np.ndarray:
    """What one source gave, (steps, world_size * its count), in the order in which it was drawn."""
    ends = np.cumsum((0, *counts))
    return batches[:, :, ends[number] : ends[number + 1]].reshape(len(batches), -1)


@st.composite
def cells(draw: Callable[..., Any]) -> tuple[int, int]:
    """A source's landscape and portrait images: tiny, skewed, of one orientation only, or ordinary."""
    kind = draw(st.sampled_from(["tiny", "skewed", "single", "plain"]))
    if kind == "tiny":
        one, other = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        return (one, other) if one + other else (1, 0)
    if kind == "skewed":
        one, other = draw(st.integers(30, 90)), draw(st.integers(1, 2))
    elif kind == "single":
        one, other = draw(st.integers(1, 60)), 0
    else:
        one, other = draw(st.integers(4, 40)), draw(st.integers(4, 40))
    return draw(st.permutations((one, other)))  # type: ignore[return-value]


RUN = dict(
    labeled=cells(),
    unlabeled=cells(),
    counts=st.sampled_from(RATIOS),
    world_size=st.integers(1, 8),
    seed=st.integers(0, 5),
    grouped=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(**RUN)
@example((1, 0), (0, 1), (1, 8), 8, 0, True)  # one labeled image, one unlabeled, 72 slots a step
@example((10, 0), (20, 20), (1, 4), 1, 0, True)  # an empty cell: mmdet's sampler hangs here
@example((1, 90), (90, 1), (4, 1), 3, 0, True)
def test_any_data_gives_full_batches_on_disjoint_ranks(
    labeled: tuple[int, int],
    unlabeled: tuple[int, int],
    counts: tuple[int, int],
    world_size: int,
    seed: int,
    grouped: bool,
) -> None:
    sources = [labeled, unlabeled]
    with watchdog():
        steps = max(steps_for(sum(s), n, world_size) for s, n in zip(sources, counts, strict=True))
        batches = draws(sources, counts, world_size, min(steps, 60), seed=seed, group_by_orientation=grouped)
    borders = (0, sum(labeled), sum(labeled) + sum(unlabeled))
    for number, cell_sizes in enumerate(sources):
        own = of_source(batches, counts, number)
        assert (own >= borders[number]).all() and (own < borders[number + 1]).all(), "counts per source"
        split = grouped and all(cell_sizes)
        smallest = min(cell_sizes) if split else sum(cell_sizes)
        if own.shape[1] <= smallest:
            assert all(len(set(step)) == own.shape[1] for step in own.tolist()), "no image twice in a step"


def visits_by_draw(own: np.ndarray, first: int, size: int) -> np.ndarray:
    """How often each image has come after each draw, (draws, size)."""
    taken = np.zeros((own.size, size), dtype=np.int64)
    taken[np.arange(own.size), own.ravel() - first] = 1
    return np.cumsum(taken, axis=0)


@settings(max_examples=60, deadline=None)
@given(**RUN)
@example((3, 2), (8, 9), (2, 3), 4, 0, True)
@example((1, 2), (1, 60), (1, 8), 2, 1, True)
def test_every_image_is_seen_equally_often_per_pass(
    labeled: tuple[int, int],
    unlabeled: tuple[int, int],
    counts: tuple[int, int],
    world_size: int,
    seed: int,
    grouped: bool,
) -> None:
    """When each image of a source has come p times, none has come more than p + 1 times.

    Among images of one orientation that holds at any time; between orientations, of which one may be a pass
    ahead, visits differ by at most two before a pass is over.
    """
    sources = [labeled, unlabeled]
    for number, (wide, tall) in enumerate(sources):
        size = wide + tall
        with watchdog():
            steps = steps_for(size, counts[number], world_size)
            batches = draws(sources, counts, world_size, steps, seed=seed, group_by_orientation=grouped)
        first = number * sum(labeled)
        visits = visits_by_draw(of_source(batches, counts, number), first, size)
        fewest, most = visits.min(axis=1), visits.max(axis=1)
        assert fewest[-1] >= 2 or steps == 400, "passes end"
        ends = np.flatnonzero(np.diff(fewest, prepend=0) > 0)
        assert (most[ends] - fewest[ends] <= 1).all(), "within one at the end of each pass"
        split = grouped and wide and tall
        assert (most - fewest).max() <= (2 if split else 1), "at any time"
        for cell in (visits[:, :wide], visits[:, wide:]) if split else ():
            assert (cell.max(axis=1) - cell.min(axis=1)).max() <= 1, "within one orientation"


def test_two_visits_apart_do_occur_between_orientations() -> None:
    """So the bound of two is not slack: one orientation is a pass ahead while the other is in its own."""
    batches = draws([(25, 25), (12, 4)], (1, 4), 1, 400, seed=0)
    visits = visits_by_draw(of_source(batches, (1, 4), 1), 50, 16)
    assert (visits.max(axis=1) - visits.min(axis=1)).max() == 2


@settings(max_examples=25, deadline=None)
@given(cells(), cells(), st.sampled_from(RATIOS), st.integers(1, 4), st.integers(0, 40))
def test_skip_lands_where_drawing_does(
    labeled: tuple[int, int], unlabeled: tuple[int, int], counts: tuple[int, int], world_size: int, done: int
) -> None:
    with watchdog():
        whole = draws([labeled, unlabeled], counts, world_size, done + 3, seed=1)
        dataset: ConcatDataset[int] = ConcatDataset([Images(*labeled), Images(*unlabeled)])
        sampler = LabeledUnlabeledSampler(dataset, counts, seed=1, rank=world_size - 1, world_size=world_size)
        sampler.skip(done * sum(counts))
        rest = list(itertools.islice(iter(sampler), 3 * sum(counts)))
    assert rest == whole[done:, -1].ravel().tolist()
