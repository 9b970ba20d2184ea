"""What tools/export.py writes, loaded by mmdet alone in another process: the boxes of tools/predict.py."""

from __future__ import annotations

import copy
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from reference import detectors
from scipy.optimize import linear_sum_assignment

pytestmark = pytest.mark.usefixtures("registered")
ROOT = Path(__file__).resolve().parents[2]
ALONE = ROOT / "tests/reference/plain_mmdet.py"
TOLERANCE = 1e-4  # of pixels and scores
SCORE, LABEL = 4, 5  # columns of rows()
MOST_BOXES = 100  # an image, in these configs

# The first config, the published detector, and one with a backbone that mmdet has under other names. The
# large detector gets small images: it takes its time on a CPU.
CONFIGS: dict[str, tuple[str, str, list[str]]] = {
    "tiny": ("configs/soft_teacher/shapes.py", "images", []),
    "r50": (
        "configs/soft_teacher/coco_10.py",
        "small",
        ["val_dataloader.dataset.pipeline.1.scale=(320,240)", "model.data_preprocessor.std=[60.,60.,60.]"],
    ),
    "mobilenet": ("configs/soft_teacher/bccd_10.py", "images", []),
}
Found = dict[str, tuple[dict[str, Any], dict[str, Any]]]


def tool(name: str) -> Any:
    return runpy.run_path(str(ROOT / f"tools/{name}.py"))["main"]


def write_checkpoint(path: Path, config_path: Path, options: dict[str, Any]) -> Path:
    """Random networks that find many boxes, the student others than the teacher, with lively statistics."""
    from ssod.engine.config import merge_options, read_config
    from ssod.registry import MODELS

    config = read_config(config_path)
    merge_options(config, options)
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(config.model)).train()
    for network in (model.student, model.teacher):
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.7, 1.4)
        detectors.enliven(network)
        for values in network.roi_head.bbox_head.fc_reg.parameters():
            values.data *= 0.25  # boxes near their proposals, as a trained network's: rounding isn't blown up
    torch.save({"state_dict": model.state_dict(), "meta": {"iter": 7}}, path)
    return path


@pytest.fixture(scope="module")
def place(data_root: Path, tmp_path_factory: pytest.TempPathFactory, registered: None) -> Path:
    """A folder with `images/`, three real ones and two drawn ones, and `small/`, the same half as large."""
    from ssod.data.shapes import draw_dataset

    root = tmp_path_factory.mktemp("exported")
    draw_dataset(root / "shapes", num_train=2, num_val=2, num_labeled=1)
    for folder in ("images", "small"):
        (root / folder).mkdir()
    real = sorted((data_root / "bccd/images").iterdir())[:3]
    for path in (*real, *sorted((root / "shapes/val").iterdir())[:2]):
        (root / "images" / path.name).symlink_to(path)
        half = cv2.resize(cv2.imread(str(path)), None, fx=0.5, fy=0.5)
        cv2.imwrite(str(root / "small" / f"{path.stem}.png"), half)
    return root


def compare(root: Path, name: str) -> Found:
    """For teacher and student what tools/predict.py writes and what mmdet alone finds with the export."""
    config, folder, words = CONFIGS[name]
    options = {"model.data_preprocessor.std": [60.0] * 3} if name == "r50" else {}
    checkpoint = write_checkpoint(root / f"{name}.pth", ROOT / config, options)
    common, jobs = [str(ROOT / config), str(checkpoint)], {}
    for which in ("teacher", "student"):
        more = ["--which", which, *(["--cfg-options", *words] if words else [])]
        place = root / f"{name}_{which}"
        assert tool("export")([*common, "--out", str(place), *more]) == 0
        how = ["--min-score", "0", "--batch-size", "1", "--num-workers", "0", "--no-pictures"]
        assert tool("predict")([*common, str(root / folder), "--out", f"{place}_ours", *how, *more]) == 0
        paths = {"config": place / "config.py", "weights": place / "weights.pth", "out": f"{place}.json"}
        images = [str(path) for path in sorted((root / folder).iterdir())]
        jobs[which] = {key: str(path) for key, path in paths.items()} | {"images": images}
    (root / "jobs.json").write_text(json.dumps(list(jobs.values())))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(ALONE), str(root / "jobs.json")],
        capture_output=True, text=True, cwd=root, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {
        which: (
            json.loads((root / f"{name}_{which}_ours/predictions.json").read_text()),
            json.loads(Path(job["out"]).read_text()),
        )
        for which, job in jobs.items()
    }


@pytest.mark.parametrize(
    "name",
    ["tiny", pytest.param("r50", marks=pytest.mark.slow), pytest.param("mobilenet", marks=pytest.mark.slow)],
)
def test_mmdet_alone_finds_the_same_boxes(place: Path, name: str) -> None:
    found = compare(place, name)
    for ours, theirs in found.values():
        check_same(ours, theirs)
    assert found["teacher"][1] != found["student"][1]


def check_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Asserts that each image has the same boxes, scores and classes in the same order."""
    assert theirs["classes"] == [each["name"] for each in ours["categories"]]
    assert len(ours["images"]) == len(theirs["images"])
    numbers = {each["id"]: number for number, each in enumerate(ours["categories"])}
    kinds = set()
    for image, other in zip(ours["images"], theirs["images"], strict=True):
        own = [one for one in ours["annotations"] if one["image_id"] == image["id"]]
        corners = np.array([one["bbox"] for one in own])
        corners[:, 2:] += corners[:, :2]
        found = rows(corners, [one["score"] for one in own], [numbers[one["category_id"]] for one in own])
        expected = rows(other["bboxes"], other["scores"], other["labels"])
        # Ours leaves out what has no area.
        expected = expected[(expected[:, 2:4] > expected[:, :2]).all(axis=1)]
        assert len(found) == len(expected) > 20, "the test needs boxes"
        check_rows(found, expected)
        assert np.ptp(found[:, SCORE]) > 0.05
        kinds |= set(found[:, LABEL])
    assert len(kinds) > 1, "the test needs several classes"


def rows(boxes: Any, scores: Any, labels: Any) -> np.ndarray:
    """(N, 6): corners in pixels, score, label."""
    return np.column_stack([boxes, scores, labels]).astype(np.float64)


def check_rows(found: np.ndarray, expected: np.ndarray) -> None:
    """Asserts the same rows in the same order, as far as rounding doesn't decide it.

    A folded network rounds a score's sixth place otherwise than a plain one, and each processor in its own
    way. Boxes whose scores are that close may change places, or one be cut off for the other in a full image.
    """
    np.testing.assert_allclose(found[:, SCORE], expected[:, SCORE], rtol=0, atol=TOLERANCE)
    distances = np.abs(found[:, None] - expected).max(axis=2)
    places, partners = linear_sum_assignment(np.minimum(distances, 1.0))
    apart = distances[places, partners] > TOLERANCE
    if len(found) == MOST_BOXES:
        apart &= found[:, SCORE] > found[-1, SCORE] + TOLERANCE
    assert not apart.any(), f"no partner:\n{found[apart]}"


def test_rows_may_change_places_only_within_rounding() -> None:
    """The check itself: a swap within rounding passes, one beyond it, a moved box and another class don't."""
    boxes = np.random.default_rng(0).uniform(0, 100, (4, 4))
    expected = rows(boxes, [0.9, 0.5, 0.499999, 0.3], [0, 1, 2, 3])
    check_rows(expected[[0, 2, 1, 3]], expected)
    moved, other = expected.copy(), expected.copy()
    moved[3, 0] += 2 * TOLERANCE
    other[3, LABEL] = 0
    for wrong in (expected[[1, 0, 2, 3]], moved, other):
        with pytest.raises(AssertionError):
            check_rows(wrong, expected)
    full = np.concatenate([np.repeat(expected[:1], MOST_BOXES - 1, axis=0), expected[3:]])
    cut = full.copy()
    cut[-1, :4] += 50
    check_rows(cut, full)
