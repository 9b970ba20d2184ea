"""STAC's box-level geometry: what is inside one box moves, and nothing else."""

from typing import Any

import numpy as np
import pytest

from ssod.data import pipelines
from ssod.data.boxwise import BoxAffine, labels_in_view

pytestmark = pytest.mark.usefixtures("registered")

BOXES = np.array([[10, 10, 50, 40], [60, 20, 100, 70], [200, 200, 210, 210]], np.float32)  # the last unseen
FLIP = [dict(type="HorizontalFlip", p=1)]


def record(boxes: Any = BOXES) -> dict[str, Any]:
    image = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    image.flags.writeable = False
    count = len(boxes)
    labels = dict(boxes=boxes, classes=np.zeros(count, np.int64), scores=np.ones(count, np.float32))
    return dict(img=image, img_shape=(80, 120), homography_matrix=np.eye(3), offline_labels=labels)


def test_the_content_of_one_box_is_moved_and_the_rest_is_not() -> None:
    run, chosen = BoxAffine(FLIP), set()
    for seed in range(12):
        np.random.seed(seed)
        before = record()
        after = run(dict(before))
        changed = np.argwhere((after["img"] != before["img"]).any(-1))
        top, left = changed.min(0)
        box = next(each for each in BOXES[:2].astype(int) if each[0] <= left < each[2])
        chosen.add(tuple(box))
        x1, y1, x2, y2 = box
        expected = before["img"].copy()
        expected[y1:y2, x1:x2] = expected[y1:y2, x1:x2][:, ::-1]
        np.testing.assert_array_equal(after["img"], expected)
        assert top == y1 and np.array_equal(after["homography_matrix"], np.eye(3))
        assert after["offline_labels"]["boxes"] is BOXES
    assert len(chosen) == 2


def test_boxes_are_where_the_view_has_them() -> None:
    half = {**record(), "homography_matrix": np.diag([0.5, 0.5, 1]), "img_shape": (40, 60)}
    half["img"] = half["img"][:40, :60]
    labels = labels_in_view(half)
    assert labels.boxes[0, labels.valid[0]].tolist() == [[5, 5, 25, 20], [30, 10, 50, 35]]
    np.random.seed(0)
    changed = np.argwhere((BoxAffine(FLIP)(dict(half))["img"] != half["img"]).any(-1))
    assert changed.max(0).tolist() in ([19, 24], [34, 49])


@pytest.mark.parametrize("boxes", [BOXES[:0], BOXES[2:], np.array([[5, 5, 6.5, 30]], np.float32)])
def test_without_a_box_to_move_the_image_stays(boxes: Any) -> None:
    before = record(boxes)
    assert BoxAffine(FLIP)(dict(before))["img"] is before["img"]


def test_without_offline_labels_the_image_stays() -> None:
    before = record()
    del before["offline_labels"]
    assert BoxAffine(FLIP)(dict(before))["img"] is before["img"]


def test_offline_views_of_stac_use_it_in_half_of_the_draws() -> None:
    """The homography is exactly the identity in the box-level half; then only one box has changed."""
    from mmengine.dataset import Compose

    strong = pipelines.strong(None, flip_prob=0.0, color=False, erase=False, space="stac")
    run = Compose(pipelines.offline(pipelines.two_views([], strong))[1:])
    inside = 0
    for seed in range(60):
        np.random.seed(seed)
        before = {**record(), "img_id": 1, "img_path": "", "ori_shape": (80, 120), "scale_factor": (1, 1)}
        sample = run({**before, "flip": False, "flip_direction": None})["strong"]
        if np.array_equal(sample["data_samples"].homography_matrix, np.eye(3)):
            inside += 1
            pixels = sample["inputs"].numpy().transpose(1, 2, 0)
            changed = (pixels != before["img"]).any(-1)
            assert not changed[:10].any() and not changed[70:].any() and not changed[:, :10].any()
        assert sample["data_samples"].gt_instances.bboxes.shape[1] == 4
    assert 18 <= inside <= 42
