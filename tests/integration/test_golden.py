"""Golden losses: 20 steps of every method on drawn shapes, from the images to the average, seed fixed.

A refactor must not move them; a change that is meant to does so in the open:
`python tests/integration/test_golden.py` writes tests/reference/golden_losses.json anew. They also move
when ssod/data/shapes.py draws otherwise (its GENERATOR_VERSION is stored and compared first) or the tests'
detector changes; experiments' configs don't matter.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

TESTS = Path(__file__).resolve().parents[1]
STORED = TESTS / "reference/golden_losses.json"
RENEW = "python tests/integration/test_golden.py"
STEPS = 20
if str(TESTS) not in sys.path:  # as a script; pytest has it there
    sys.path.insert(0, str(TESTS))

EMA = dict(type="EMATeacher", decay=0.9)
# A burn-in or a ramp, so that they count, too; bounds that some detections of these networks pass.
BURN_IN = dict(value=1.0, start=3)
METHODS: dict[str, dict[str, Any] | None] = {
    "supervised": None,
    "SoftTeacher": dict(
        unsup_weight=BURN_IN, floor=0.3, rpn_min_score=0.5, cls_min_score=0.5, box_max_spread=0.1
    ),
    "MeanTeacher": dict(unsup_weight=dict(value=5.0, length=10, shape="sigmoid"), rpn_weight=1.0),
    "FixMatch": dict(unsup_weight=BURN_IN, min_score=0.3),
    "UnbiasedTeacher": dict(unsup_weight=BURN_IN, min_score=0.5),
    "STAC": dict(),
}
# For each step, relative to its total loss. Torch 2.11 gives the digits of 2.15. Before labels are made
# processors differ by 3e-6; in the first eight steps other convolutions (oneDNN off) by 1.1e-4 at most, AVX2
# alone by 2.1e-3; then scores cross bounds, and it is up to 0.17.
BOUNDS = [1e-3] * 3 + [5e-3] * 5 + [0.3] * (STEPS - 8)


def loader(root: Path, offline_labels: bool) -> Any:
    """2 labeled and 2 unlabeled shapes a batch, at 96 px, loaded in this process; with labels if asked."""
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    from ssod.data.pipelines import labeled, offline, strong, two_views, weak
    from ssod.data.shapes import CLASSES, draw_dataset

    init_default_scope("ssod")
    draw_dataset(root, num_train=16, num_val=1, num_labeled=6)
    place = dict(data_root=str(root), data_prefix=dict(img="train/"), metainfo=dict(classes=CLASSES))
    scale = [(96, 96), (112, 112)]
    known = dict(
        type="LabeledCoco", ann_file="annotations/train_labeled.json", pipeline=labeled(scale), **place
    )
    unknown = dict(
        type="UnlabeledCoco",
        ann_file="annotations/train_unlabeled.json",
        pipeline=two_views(weak(scale), strong(scale)),
        **place,
    )
    if offline_labels:
        truth = json.loads((root / "annotations/train_unlabeled_truth.json").read_text())
        for number, annotation in enumerate(truth["annotations"]):
            annotation["score"] = (0.5, 0.95)[number % 2]
        (root / "pseudo.json").write_text(json.dumps(truth))
        unknown["pipeline"] = offline(unknown["pipeline"])
        unknown = dict(type="PseudoLabeled", dataset=unknown, labels=str(root / "pseudo.json"))
    return Runner.build_dataloader(
        dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type="LabeledUnlabeledSampler", counts=(2, 2)),
            collate_fn=dict(type="ssod.collate_views"),
            dataset=dict(type="ConcatDataset", datasets=[known, unknown]),
        ),
        seed=0,
    )


def losses_of(name: str, root: Path) -> dict[str, list[float]]:
    """{loss: its value in each of the steps} of a method; 0 where a step doesn't have it."""
    from reference import detectors

    from ssod.registry import MODELS

    random.seed(0)
    np.random.seed(0)
    batches = iter(loader(root, offline_labels=name == "STAC"))
    options = METHODS[name]
    method = None if options is None else dict(type=name, **options)
    model = detectors.semi_detector(method, EMA, exhaustive=False)
    preprocessor = MODELS.build(
        dict(type="SemiPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, pad_size_divisor=32)
    )
    optimizer = torch.optim.SGD(model.student.parameters(), lr=1e-3, momentum=0.9)
    model.start()
    torch.manual_seed(0)
    found: dict[str, list[float]] = {}
    for step in range(STEPS):
        model.train().set_step(step)
        losses = model.loss(preprocessor(next(batches), True)["inputs"])
        losses = {key: value for key, value in losses.items() if "loss" in key}
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.student.parameters(), 10.0)
        optimizer.step()
        model.after_step(step)
        for key, value in losses.items():
            found.setdefault(key, [0.0] * STEPS)[step] = float(f"{value.item():.6g}")
    return found


def stored() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return content


def test_the_file_fits_the_drawing_and_the_methods() -> None:
    from ssod.data.shapes import GENERATOR_VERSION

    content = stored()
    assert content["generator"] == GENERATOR_VERSION, f"shapes are drawn otherwise now: {RENEW}"
    assert list(content["losses"]) == list(METHODS), f"a method has no golden losses: {RENEW}"


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_the_golden_ones(registered: None, name: str, tmp_path: Path) -> None:
    expected, got = stored()["losses"][name], losses_of(name, tmp_path / "shapes")
    assert list(got) == list(expected)
    if name != "supervised":
        assert max(got["unsup_loss_cls"][-5:]) > 0, "the last steps must learn from unlabeled images"
    for step in range(STEPS):
        scale = sum(values[step] for values in expected.values())
        for key, values in expected.items():
            apart = abs(got[key][step] - values[step]) / scale
            assert apart <= BOUNDS[step], (
                f"step {step}: {key} is {got[key][step]}, was {values[step]}; meant? {RENEW}"
            )


def renew() -> None:
    """Writes the file anew, one line for each loss, and says how far the old ones were."""
    from ssod.data.shapes import GENERATOR_VERSION
    from ssod.registry import register_all_modules

    torch.set_num_threads(1)
    register_all_modules()
    before = stored()["losses"] if STORED.exists() else {}
    lines = []
    for name in METHODS:
        with tempfile.TemporaryDirectory() as folder:
            losses = losses_of(name, Path(folder) / "shapes")
        terms = ",\n   ".join(f"{json.dumps(key)}: {json.dumps(values)}" for key, values in losses.items())
        lines.append(f"  {json.dumps(name)}: {{\n   {terms}\n  }}")
        print(name, *(f"{each:.1e}" for each in distances(before.get(name, {}), losses)))
    body = ",\n".join(lines)
    head = f'"generator": {GENERATOR_VERSION}, "torch": {json.dumps(torch.__version__)}'
    STORED.write_text(f'{{\n {head},\n "losses": {{\n{body}\n }}\n}}\n', encoding="utf-8")


def distances(before: dict[str, list[float]], after: dict[str, list[float]]) -> list[float]:
    """Of each step, the largest change of a loss relative to the step's total."""
    if before.keys() != after.keys():
        return [math.inf] * STEPS
    totals = [sum(values[step] for values in before.values()) for step in range(STEPS)]
    return [
        max(abs(after[key][step] - before[key][step]) / totals[step] for key in before)
        for step in range(STEPS)
    ]


if __name__ == "__main__":
    renew()
