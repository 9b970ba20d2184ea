"""Tests of LabeledUnlabeledSampler; mmdet's own samplers are shown to fail where it must not."""

import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import GroupMultiSourceSampler, MultiSourceSampler
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from ssod.data.sampler import LabeledUnlabeledSampler
from ssod.errors import UserError
from ssod.registry import DATA_SAMPLERS


class Images(Dataset[int]):
    """A dataset of `landscape` wide images followed by `portrait` tall ones, or without sizes."""

    def __init__(self, landscape: int, portrait: int = 0, sizes: bool = True) -> None:
        self.widths = [200] * landscape + [100] * portrait
        self.sizes = sizes
        self.reads = 0

    def __len__(self) -> int:
        return len(self.widths)

    def __getitem__(self, index: int) -> int:
        self.reads += 1
        return index

    def get_data_info(self, index: int) -> dict[str, int]:
        return {"width": self.widths[index], "height": 150} if self.sizes else {}


class Joined(ConcatDataset[int]):
    """A ConcatDataset whose items are their own indices, so that a batch shows what was drawn."""

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        return index


def build(*sources: Images, counts: tuple[int, ...] = (1, 4), **options: Any) -> LabeledUnlabeledSampler:
    options = {"seed": 0, "rank": 0, "world_size": 1, **options}
    return LabeledUnlabeledSampler(Joined(sources), counts, **options)


def take_batches(sampler: LabeledUnlabeledSampler, number: int) -> np.ndarray:
    """Batches (number, sum(counts)) of indices."""
    indices = itertools.islice(iter(sampler), number * sampler.batch_size)
    return np.fromiter(indices, int).reshape(number, sampler.batch_size)


def orientations(sources: Iterable[Images], batches: np.ndarray) -> np.ndarray:
    """Whether each index is of a landscape image."""
    widths = np.concatenate([source.widths for source in sources])
    return np.asarray(widths)[batches] == 200


# ------------------------------------------------------------- rows 1-3 of the base's faults


class HangError(Exception):
    """Raised in place of a loop that would not end."""


def bounded(source: Iterator[int], limit: int = 10_000) -> Iterator[int]:
    for _ in range(limit):
        yield next(source)
    raise HangError


@pytest.mark.parametrize(
    ("batch_size", "ratio", "starved"), [(1, [1, 4], 1), (2, [4, 1], 1), (3, [1, 1, 4], 1)]
)
def test_row_1_mmdet_hangs_on_a_source_without_slots(batch_size: int, ratio: list[int], starved: int) -> None:
    sources = [Images(10) for _ in ratio]
    theirs = MultiSourceSampler(Joined(sources), batch_size, ratio, seed=0)
    assert theirs.num_per_source[starved] == 0
    theirs.source2inds = {s: bounded(inds) for s, inds in theirs.source2inds.items()}
    with pytest.raises(HangError):
        next(iter(theirs))
    with pytest.raises(UserError, match=r"dataset 1 \(Images\) 0 images per batch.*at least 1"):
        build(*sources, counts=tuple(theirs.num_per_source))


def test_row_1_mmdet_hangs_on_an_empty_source(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [Images(10), Images(0)]
    theirs = MultiSourceSampler(Joined(sources), 5, [1, 4], seed=0)
    limit_shuffles(monkeypatch)
    with pytest.raises(HangError):
        next(iter(theirs))
    with pytest.raises(UserError, match=r"dataset 1 \(Images\) has no images; check its ann_file"):
        build(*sources)


def limit_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmdet shuffles an empty cell over and over: lets it do so a thousand times."""
    shuffles, real = itertools.count(), torch.randperm

    def randperm(*args: Any, **options: Any) -> torch.Tensor:
        if next(shuffles) > 1000:
            raise HangError
        return real(*args, **options)

    monkeypatch.setattr(torch, "randperm", randperm)


def test_row_2_mmdet_hangs_on_an_empty_orientation_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """All labeled images landscape, some unlabeled ones portrait."""
    sources = [Images(10), Images(20, 20)]
    theirs = GroupMultiSourceSampler(Joined(sources), 5, [1, 4], seed=0)
    with monkeypatch.context() as patch:
        limit_shuffles(patch)
        with pytest.raises(HangError):
            list(itertools.islice(iter(theirs), 500))

    ours = build(*sources)
    batches = take_batches(ours, 400)
    assert set(batches.ravel().tolist()) == set(range(50))
    unlabeled = orientations(sources, batches)[:, 1:]
    assert (unlabeled.all(axis=1) | ~unlabeled.any(axis=1)).mean() > 0.95


def test_row_2_mmdet_draws_from_the_global_generator_and_ours_does_not() -> None:
    sources = [Images(30, 30), Images(100, 100)]

    def draw(kind: Any, seed: int, **options: Any) -> list[int]:
        np.random.seed(seed)
        torch.manual_seed(seed)
        return list(itertools.islice(iter(kind(Joined(sources), seed=0, **options)), 200))

    theirs = [draw(GroupMultiSourceSampler, s, batch_size=5, source_ratio=[1, 4]) for s in (1, 2)]
    ours = [draw(LabeledUnlabeledSampler, s, counts=(1, 4)) for s in (1, 2)]
    assert theirs[0] != theirs[1]
    assert ours[0] == ours[1]


def test_row_3_mmdet_reports_a_length_that_it_does_not_keep() -> None:
    dataset = Joined([Images(10), Images(20)])
    theirs = MultiSourceSampler(dataset, 5, [1, 4], seed=0)
    loader = DataLoader(dataset, batch_size=5, sampler=theirs)
    assert len(loader) == 6
    assert len(list(itertools.islice(loader, 60))) == 60  # an epoch loop would go on for ever

    ours = build(Images(10), Images(20))
    with pytest.raises(UserError, match="has no epochs; count in iterations"):
        len(DataLoader(dataset, batch_size=5, sampler=ours))


# ----------------------------------------------------------------------------- the stream


def test_every_batch_has_the_counts() -> None:
    batches = take_batches(build(Images(7, 5), Images(40, 23), counts=(2, 3)), 500)
    assert ((batches < 12).sum(axis=1) == 2).all()
    assert (batches[:, :2] < 12).all() and (batches[:, 2:] >= 12).all()


@pytest.mark.parametrize("counts", [(3,), (1, 1, 2), (2, 1, 1, 5)])
def test_any_number_of_sources(counts: tuple[int, ...]) -> None:
    sources = [Images(9 + n, 6 + 2 * n) for n in range(len(counts))]
    batches = take_batches(build(*sources, counts=counts), 300)
    ends = np.cumsum([len(source) for source in sources])
    np.testing.assert_array_equal(
        np.searchsorted(ends, batches, side="right"),
        np.tile(np.repeat(np.arange(len(counts)), counts), (300, 1)),
    )


def test_a_plain_dataset_is_one_source() -> None:
    sampler = LabeledUnlabeledSampler(Images(6, 6), (3,), batch_size=3, seed=0)
    assert sorted(take_batches(sampler, 4).ravel().tolist()) == list(range(12))


def test_without_groups_each_source_is_a_run_of_permutations() -> None:
    sampler = build(Images(6, 4), Images(12, 8), group_by_orientation=False)
    batches = take_batches(sampler, 50)
    for source, first, size in ((batches[:, :1], 0, 10), (batches[:, 1:], 10, 20)):
        passes = source.ravel().reshape(-1, size)
        np.testing.assert_array_equal(
            np.sort(passes), np.tile(np.arange(first, first + size), (len(passes), 1))
        )
        assert len({tuple(p) for p in passes.tolist()}) == len(passes)


def test_equal_shares_give_batches_of_one_orientation() -> None:
    sources = [Images(30, 20), Images(600, 400)]
    landscape = orientations(sources, take_batches(build(*sources), 2000))
    same = landscape.all(axis=1) | ~landscape.any(axis=1)
    assert same.mean() > 0.99
    assert landscape[:, 0].mean() == pytest.approx(0.6, abs=0.01)
    ungrouped = build(*sources, group_by_orientation=False)
    mixed = orientations(sources, take_batches(ungrouped, 2000))
    assert (mixed.all(axis=1) | ~mixed.any(axis=1)).mean() < 0.2


@pytest.mark.parametrize(("landscape", "expected"), [(500, 0.0), (700, 0.2), (100, 0.4)])
def test_mixed_batches_are_the_difference_of_the_shares(landscape: int, expected: float) -> None:
    """Total variation distance, the least that any faithful choice can reach."""
    sources = [Images(25, 25), Images(landscape, 1000 - landscape)]
    shown = orientations(sources, take_batches(build(*sources), 6000))
    mixed = ~(shown.all(axis=1) | ~shown.any(axis=1))
    assert mixed.mean() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "counts", "world_size"),
    [
        ((30, 20), (90, 60), (1, 4), 1),
        ((25, 25), (140, 10), (1, 4), 1),  # shares that differ
        ((49, 1), (5, 145), (4, 2), 1),  # tiny cells
        ((50, 0), (80, 70), (1, 4), 1),  # an empty cell
        ((3, 2), (8, 9), (2, 3), 4),  # a step needs more than there is
        ((25, 25), (100, 50), (2, 6), 3),
    ],
)
def test_every_image_comes_equally_often(
    labeled: tuple[int, int],
    unlabeled: tuple[int, int],
    counts: tuple[int, int],
    world_size: int,
) -> None:
    sources = [Images(*labeled), Images(*unlabeled)]
    streams = [
        take_batches(build(*sources, counts=counts, rank=r, world_size=world_size), 700)
        for r in range(world_size)
    ]
    for checked in (1, 60, 333, 700):
        visits = np.bincount(np.stack(streams)[:, :checked].ravel(), minlength=sum(map(len, sources)))
        for part in (visits[: sum(labeled)], visits[sum(labeled) :]):
            assert part.max() - part.min() <= 2


def test_orientations_do_not_come_in_clumps() -> None:
    """A source whose share differs still sees both orientations all the time."""
    sources = [Images(25, 25), Images(800, 200)]
    shown = orientations(sources, take_batches(build(*sources), 1000))[:, 1:].mean(axis=1)
    windows = shown.reshape(20, 50).mean(axis=1)
    assert windows.min() > 0.55 and windows.max() < 0.97


@pytest.mark.parametrize("unknown", [0, 1])
def test_a_source_without_sizes_joins_any_batch(unknown: int) -> None:
    sources = [Images(30, 20), Images(60, 40)]
    sources[unknown].sizes = False
    batches = take_batches(build(*sources), 500)
    assert set(batches.ravel().tolist()) == set(range(150))
    known = orientations(sources, batches)[:, 1:] if unknown == 0 else None
    if known is not None:
        assert (known.all(axis=1) | ~known.any(axis=1)).mean() > 0.9


def test_another_seed_is_another_stream() -> None:
    first, again, other = (take_batches(build(Images(30, 20), Images(90, 60), seed=s), 50) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# ------------------------------------------------------------------------------ ranks


def test_ranks_are_disjoint_within_a_step() -> None:
    sources = [Images(17, 13), Images(90, 61)]
    ranks = [take_batches(build(*sources, counts=(2, 5), rank=r, world_size=4), 400) for r in range(4)]
    for step in zip(*ranks, strict=True):
        assert len(set(np.concatenate(step).tolist())) == 4 * 7
        assert all((batch[:2] < 30).all() and (batch[2:] >= 30).all() for batch in step)


def test_a_source_smaller_than_a_step_still_fills_it() -> None:
    ranks = [
        take_batches(build(Images(3, 2), Images(40), counts=(2, 1), rank=r, world_size=4), 100)
        for r in range(4)
    ]
    for step in np.stack(ranks, axis=1):  # 8 labeled slots for 5 images
        assert len(set(step[:, :2].ravel().tolist())) >= 4
        assert len(set(step[:, 2].tolist())) == 4


# ------------------------------------------------------------------- resume: state and skip


@pytest.mark.parametrize("position", [0, 5, 35, 500, 502])
def test_state_round_trip(position: int) -> None:
    sources = [Images(17, 13), Images(90, 61)]
    one = build(*sources)
    stream = iter(one)
    list(itertools.islice(stream, position))
    state = one.state_dict()
    expected = list(itertools.islice(stream, 300))
    other = build(*sources, seed=99)
    other.load_state_dict(torch_round_trip(state))
    assert list(itertools.islice(iter(other), 300)) == expected


def torch_round_trip(state: dict[str, Any]) -> dict[str, Any]:
    """The state after a checkpoint's way to disk and back, with torch's safe loader."""
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_a_state_of_another_dataset_is_refused() -> None:
    state = build(Images(17, 13), Images(90)).state_dict()
    with pytest.raises(
        UserError, match=r"\[\[17, 13\], \[90\]\] images by orientation, this run has \[\[17, 14\]"
    ):
        build(Images(17, 14), Images(90)).load_state_dict(state)


@pytest.mark.parametrize("world_size", [1, 3])
def test_skip_equals_iterating(world_size: int) -> None:
    sources = [Images(17, 13), Images(90, 61)]
    options = {"rank": world_size - 1, "world_size": world_size}
    expected = take_batches(build(*sources, **options), 240)[200:]
    sampler = build(*sources, **options)
    take_batches(sampler, 3)  # skip is absolute: what was drawn before doesn't count
    sampler.skip(200 * 5)
    np.testing.assert_array_equal(take_batches(sampler, 40), expected)
    assert sources[0].reads == sources[1].reads == 0


def test_skip_refuses_a_broken_batch() -> None:
    with pytest.raises(UserError, match=r"batch_size to sum\(counts\) = 5"):
        build(Images(10), Images(20)).skip(7)


@pytest.mark.parametrize("world_size", [1, 3])
def test_the_state_after_some_batches_is_where_drawing_them_leads(world_size: int) -> None:
    sources = [Images(17, 13), Images(90, 61)]
    options = {"rank": world_size - 1, "world_size": world_size}
    expected = take_batches(build(*sources, **options), 60)
    sampler = build(*sources, **options)
    take_batches(sampler, 50)  # a loader with workers has read ahead of training
    for trained in (7, 7, 31, 12):  # and a checkpoint may be asked for again, or an older one
        other = build(*sources, seed=5, **options)
        other.load_state_dict(torch_round_trip(sampler.state_after(trained)))
        np.testing.assert_array_equal(take_batches(other, 20), expected[trained : trained + 20])
        later = build(*sources, **options)  # a run that was resumed is asked for its position
        later.load_state_dict(torch_round_trip(other.state_after(trained + 9)))
        np.testing.assert_array_equal(take_batches(later, 11), expected[trained + 9 : trained + 20])


def test_on_other_processes_the_stream_goes_on() -> None:
    """6 batches of two processes are the first 12 of the stream; one process goes on with the 13th."""
    sources = [Images(17, 13), Images(90, 61)]
    two = build(*sources, rank=0, world_size=2)
    state = torch_round_trip(two.state_after(6))
    rest = [take_batches(build_at(sources, state, rank), 4) for rank in (0, 1)]
    one = build(*sources)
    one.load_state_dict(state, 12)
    # Where no image comes twice within a step of two, one process draws the same batches one after the other.
    expected = np.stack(rest, axis=1).reshape(8, -1)
    np.testing.assert_array_equal(take_batches(one, 8), expected)
    assert next(iter(one)).key[1] == 20  # the iteration that the views are drawn for


def build_at(sources: list[Images], state: dict[str, Any], rank: int) -> Any:
    sampler = build(*sources, rank=rank, world_size=2)
    sampler.load_state_dict(state)
    return sampler


def test_a_state_within_a_batch_is_for_the_same_counts() -> None:
    sampler = build(Images(10), Images(20))
    next(iter(sampler))
    with pytest.raises(UserError, match="within a batch"):
        build(Images(10), Images(20), rank=0, world_size=2).load_state_dict(sampler.state_dict())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_mmengine_resumes_by_skip(num_workers: int) -> None:
    sources = [Images(17, 13), Images(90, 61)]
    dataset = Joined(sources)
    expected = take_batches(build(*sources), 30)[20:]
    loader = DataLoader(dataset, 5, sampler=build(*sources), num_workers=num_workers)
    iterator = _InfiniteDataloaderIterator(loader)
    iterator.skip_iter(20)
    found = np.stack([np.asarray(next(iterator)) for _ in range(10)])
    np.testing.assert_array_equal(found, expected)


# --------------------------------------------------------------------- in mmengine's hands


class Recorder(BaseModel):
    """A model that writes down its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []

    def forward(self, *inputs: Any, mode: str = "loss", **_: Any) -> dict[str, torch.Tensor]:
        return {"loss": self.weight.sum()}

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        self.seen.append([int(i) for i in data])
        parsed: dict[str, torch.Tensor] = super().train_step({"inputs": data}, optim_wrapper)
        return parsed


def runner_of(work_dir: Path, max_iters: int, **options: Any) -> Runner:
    loader = {
        "batch_size": 5,
        "num_workers": 0,
        "dataset": Joined([Images(17, 13), Images(90, 61)]),
        "sampler": {"type": "LabeledUnlabeledSampler", "counts": (1, 4)},
        "collate_fn": pseudo_collate,
    }
    options = {
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": max_iters},
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 6, "by_epoch": False}},
        "randomness": {"seed": 3},
        **options,
    }
    return Runner(
        Recorder(),
        str(work_dir),
        train_dataloader=loader,
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        default_scope="ssod",
        experiment_name=f"{work_dir.name}-{time.monotonic_ns()}",
        log_level="ERROR",
        **options,
    )


def test_an_iteration_loop_trains_and_resumes(tmp_path: Path) -> None:
    """With mmengine's default logger, which asks for the length after every iteration."""
    whole = runner_of(tmp_path / "whole", 12)
    whole.train()
    assert len(whole.model.seen) == 12
    checkpoint = str(tmp_path / "whole" / "iter_6.pth")
    resumed = runner_of(tmp_path / "resumed", 12, resume=True, load_from=checkpoint)
    resumed.train()
    assert resumed.model.seen == whole.model.seen[6:]


def test_an_epoch_loop_is_refused(tmp_path: Path) -> None:
    options = {"train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 2}}
    with pytest.raises(UserError, match="has no epochs; count in iterations"):
        runner_of(tmp_path, 0, **options).train()


def test_a_schedule_in_epochs_is_refused(tmp_path: Path) -> None:
    schedule = {"type": "MultiStepLR", "milestones": [1], "convert_to_iter_based": True}
    with pytest.raises(UserError, match="by_epoch=False"):
        runner_of(tmp_path, 5, param_scheduler=schedule).train()


# ------------------------------------------------------------------------- construction


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ((1,), {}, r"counts=\(1,\): 1 for 2 datasets; give one count"),
        ((1, 2, 3), {}, r"3 for 2 datasets"),
        ((1, 0), {}, r"dataset 1 \(Images\) 0 images per batch"),
        ((-1, 5), {}, r"dataset 0 \(Images\) -1 images per batch"),
        ((1, 2.5), {}, r"2\.5 images per batch; every dataset needs a whole number"),
        ((1, 4), {"batch_size": 8}, r"batch_size=8 but counts=\(1, 4\) sum to 5"),
        ((1, 4), {"batch_size": 0}, r"batch_size=0 but"),
        ((1, 4), {"rank": 2, "world_size": 2}, r"rank 2 is not in 0\.\.1"),
    ],
)
def test_errors_at_construction(counts: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(Images(5, 5), Images(9), counts=counts, **options)
    assert "\n" not in str(caught.value)


def test_it_is_built_from_a_config() -> None:
    dataset = Joined([Images(5, 5), Images(9)])
    config = {"type": "LabeledUnlabeledSampler", "counts": [1, 4], "batch_size": 5}
    config["_scope_"] = "ssod"  # as a config's default_scope does
    sampler = DATA_SAMPLERS.build(config, default_args={"dataset": dataset, "seed": None})
    assert isinstance(sampler, LabeledUnlabeledSampler) and sampler.counts == (1, 4)
