"""Views as a function of seed, iteration, rank and place: whatever the workers, and after a resume."""

import pickle
import random
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from ssod.data.draws import Draw, SeededDraws, seeded
from ssod.data.pipelines import labeled, strong, two_views, weak

pytestmark = pytest.mark.usefixtures("registered")
ITERATIONS = 4


def three() -> tuple[float, float, float]:
    """One number from each of the host's generators."""
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_a_block_is_a_function_of_its_key_and_leaves_the_generators_alone() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = [three(), three()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    got = [three()]
    with seeded((0, 5, 0, 2)):
        inside = [three(), three()]
    got.append(three())
    assert got == expected
    keys = [(0, 5, 0, 2), (1, 5, 0, 2), (0, 6, 0, 2), (0, 5, 1, 2), (0, 5, 0, 3)]
    drawn = []
    for key in keys:
        with seeded(key):
            drawn.append([three(), three()])
    assert drawn[0] == inside
    numbers = {number for pair in drawn for numbers in pair for number in numbers}
    assert len(numbers) == len(keys) * 6, "every part of the key must change all generators"


def test_generators_are_put_back_after_an_error() -> None:
    before = np.random.get_state()[1].tolist()
    with pytest.raises(KeyError), seeded((0, 0, 0, 0)):
        raise KeyError
    assert np.random.get_state()[1].tolist() == before


def test_a_draw_is_an_index_that_travels_to_a_worker() -> None:
    draw = pickle.loads(pickle.dumps(Draw(7, (3, 2, 1, 0))))
    assert draw == 7 and list(range(10))[draw] == 7 and draw.key == (3, 2, 1, 0)


@pytest.fixture(scope="module")
def make_loader(registered: None, tmp_path_factory: Any) -> Callable[..., Any]:
    """Function: a loader of 2 labeled and 3 unlabeled drawn images a batch, as training has it."""
    from ssod.data.shapes import CLASSES, draw_dataset

    root = tmp_path_factory.mktemp("draws") / "shapes"
    draw_dataset(root, num_train=16, num_val=1, num_labeled=6)
    place = dict(data_root=str(root), data_prefix=dict(img="train/"), metainfo=dict(classes=CLASSES))
    scale = [(96, 96), (128, 128)]
    # albumentations with generators of its own, one of torch's and one of Python's
    extra = [dict(type="Affine", rotate=(-20, 20), p=0.5), dict(type="GaussNoise", p=0.5)]
    parts = [
        dict(type="LabeledCoco", ann_file="annotations/train_labeled.json", pipeline=labeled(scale), **place),
        dict(
            type="UnlabeledCoco",
            ann_file="annotations/train_unlabeled.json",
            pipeline=two_views(weak(scale), strong(scale, extra=extra)),
            **place,
        ),
    ]

    def make(workers: int = 0, wrapped: bool = True, seed: int = 0, **sampler: Any) -> Any:
        joined: dict[str, Any] = dict(type="ConcatDataset", datasets=parts)
        return Runner.build_dataloader(
            dict(
                batch_size=5,
                num_workers=workers,
                sampler=dict(type="LabeledUnlabeledSampler", counts=(2, 3), **sampler),
                collate_fn=dict(type="ssod.collate_views"),
                dataset=dict(type="SeededDraws", dataset=joined) if wrapped else joined,
            ),
            seed=seed,
        )

    return make


def contents(loader: Any, count: int = ITERATIONS) -> list[dict[str, Any]]:
    """The pixels, homographies, boxes and ids of each batch, by view."""
    return [
        {
            view: [
                (
                    image,
                    torch.as_tensor(np.asarray(sample.homography_matrix)),
                    sample.gt_instances.bboxes.tensor if view == "labeled" else torch.zeros(0),
                    sample.img_id,
                )
                for image, sample in zip(batch[view]["inputs"], batch[view]["data_samples"], strict=True)
            ]
            for view in batch
        }
        for batch in islice(iter(loader), count)
    ]


def same(first: Any, second: Any) -> bool:
    """Whether two batches hold the same bits."""
    return first.keys() == second.keys() and all(
        len(first[view]) == len(second[view])
        and all(
            a[3] == b[3] and all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
            for a, b in zip(first[view], second[view], strict=True)
        )
        for view in first
    )


@pytest.fixture(scope="module")
def expected(make_loader: Callable[..., Any]) -> list[dict[str, Any]]:
    """The first batches, loaded without a worker."""
    return contents(make_loader())


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_workers_changes_no_bit(
    make_loader: Callable[..., Any], expected: list[dict[str, Any]], workers: int
) -> None:
    np.random.seed(99)  # nor does what else was drawn in this process
    got = contents(make_loader(workers))
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_skip_to_an_iteration_changes_no_bit(
    make_loader: Callable[..., Any], expected: list[dict[str, Any]], workers: int
) -> None:
    loader = make_loader(workers)
    loader.sampler.skip(2 * 5)
    got = contents(loader, ITERATIONS - 2)
    assert all(same(a, b) for a, b in zip(got, expected[2:], strict=True))


def test_a_saved_sampler_goes_on_with_the_same_bits(
    make_loader: Callable[..., Any], expected: list[dict[str, Any]]
) -> None:
    first = make_loader()
    contents(first, 1)
    second = make_loader()
    second.sampler.load_state_dict(first.sampler.state_dict())
    assert same(contents(second, 1)[0], expected[1])


def test_seed_rank_iteration_and_place_all_count(make_loader: Callable[..., Any]) -> None:
    """The draw of one image, asked for under different names."""
    dataset = make_loader().dataset
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    views = [dataset[Draw(9, key)]["strong"]["inputs"] for key in keys]
    assert torch.equal(views[0], dataset[Draw(9, keys[0])]["strong"]["inputs"])
    assert not any(torch.equal(views[0], other) for other in views[1:])


def test_ranks_have_other_images_and_other_draws(make_loader: Callable[..., Any]) -> None:
    loaders = [make_loader(rank=rank, world_size=2) for rank in (0, 1)]
    zero, one = (list(islice(loader.sampler, 5)) for loader in loaders)
    assert not set(zero) & set(one)
    assert [draw.key for draw in zero] == [(0, 0, 0, place) for place in range(5)]
    assert [draw.key for draw in one] == [(0, 0, 1, place) for place in range(5)]


def test_without_it_the_views_depend_on_the_workers(
    make_loader: Callable[..., Any], expected: list[dict[str, Any]]
) -> None:
    """What mmengine's seeding of workers does: the reason for SeededDraws."""
    one, two = (contents(make_loader(workers, wrapped=False)) for workers in (1, 2))
    assert not all(same(a, b) for a, b in zip(one, two, strict=True))


def test_the_rest_of_the_dataset_is_still_to_be_had(make_loader: Callable[..., Any]) -> None:
    dataset = make_loader().dataset
    assert isinstance(dataset, SeededDraws) and len(dataset) == 16
    assert dataset.cumulative_sizes == [6, 16] and dataset.metainfo["classes"]
    assert len(pickle.loads(pickle.dumps(dataset))) == 16
    np.random.seed(0)
    first = dataset[8]["weak"]["inputs"]  # no Draw: from the generators as they are
    np.random.seed(0)
    assert torch.equal(dataset[8]["weak"]["inputs"], first)
