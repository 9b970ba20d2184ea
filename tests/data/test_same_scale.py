"""One scale for a batch: shared within a stack, new for the next batch, of the same distribution."""

from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose

from ssod.data.draws import seeded
from ssod.data.pipelines import labeled, strong, two_views, weak

pytestmark = pytest.mark.usefixtures("registered")
SCALE: Any = [(96, 30), (96, 72)]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = str(tmp_path_factory.mktemp("same") / "a.jpg")
    cv2.imwrite(path, np.zeros((144, 192, 3), np.uint8))
    return dict(img_path=path, img_id=1, height=144, width=192, instances=[])


def heights(
    record: dict[str, Any], run: Any, batch: tuple[int, ...], places: int = 4
) -> dict[str, list[int]]:
    """The heights of a batch's views."""
    found: dict[str, list[int]] = {}
    for place in range(places):
        with seeded((*batch, place)):
            item = run(dict(record))
        for name, view in item.items():
            found.setdefault(name, []).append(view["inputs"].shape[1])
    return found


def unlabeled(same: bool, **options: Any) -> Any:
    return Compose(two_views(weak(SCALE, same_scale=same), strong(SCALE, same_scale=same), **options))


@pytest.mark.parametrize("reduced", [False, True])
def test_a_batch_shares_a_scale_stack_by_stack(record: dict[str, Any], reduced: bool) -> None:
    run = unlabeled(True, reduced_decoding=reduced)
    known = Compose(labeled(SCALE, same_scale=True, reduced_decoding=reduced))
    seen = set()
    for iteration in range(8):
        found = heights(record, run, (3, iteration, 0)) | heights(record, known, (3, iteration, 0))
        assert all(len(set(each)) == 1 for each in found.values())
        assert found["labeled"] == found["strong"]  # the student's batch
        seen.add((found["weak"][0], found["strong"][0]))
    assert len(seen) > 5 and any(weak != strong for weak, strong in seen)
    assert heights(record, run, (3, 0, 0)) != heights(record, run, (3, 0, 1))  # another rank
    assert heights(record, run, (3, 0, 0)) != heights(record, run, (4, 0, 0))  # another seed


def test_without_it_each_image_has_its_own(record: dict[str, Any]) -> None:
    found = heights(record, unlabeled(False), (3, 0, 0))
    assert all(len(set(each)) > 1 for each in found.values())


def test_each_scale_comes_as_often(record: dict[str, Any]) -> None:
    """Uniform from 30 to 72 rows, over many batches."""
    [load, views] = two_views(weak(SCALE, same_scale=True), strong(SCALE))
    run = Compose([load, views["weak"][0]])
    drawn = []
    for iteration in range(500):
        with seeded((0, iteration, 0, 0)):
            drawn.append(run(dict(record))["img"].shape[0])
    assert (min(drawn), max(drawn)) == (30, 72)
    assert np.mean(drawn) == pytest.approx(51, abs=1.7) and np.std(drawn) == pytest.approx(12.4, abs=1)


def test_what_follows_is_drawn_for_each_image(record: dict[str, Any]) -> None:
    run = unlabeled(True)
    flips = []
    for place in range(12):
        with seeded((0, 0, 0, place)):
            flips.append(run(dict(record))["weak"]["data_samples"].flip)
    assert len(set(flips)) == 2


def test_an_image_that_no_batch_asked_for_is_drawn_alone(record: dict[str, Any]) -> None:
    run = unlabeled(True)
    np.random.seed(0)
    assert len({run(dict(record))["weak"]["inputs"].shape[1] for _ in range(6)}) > 1
