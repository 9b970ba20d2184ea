"""Twenty steps of a method on one process or on several that share its batches; a program, too.

`python parity.py FOLDER METHOD`, under a launcher or alone, writes `<rank>.json`: losses and teacher.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, nn

PER_STEP = 2  # labeled images, and as many unlabeled ones, of all processes together
SIZES = ((64, 64),) * PER_STEP  # padding would depend on the batch
# No random numbers: no jitter. Random networks have something to teach above these bounds.
METHODS: dict[str, dict[str, Any]] = {
    "SoftTeacher": dict(floor=0.3, rpn_min_score=0.4, cls_min_score=0.4, box_selection="score"),
    "MeanTeacher": dict(rpn_weight=1.0),
    "FixMatch": dict(min_score=0.4, labeler="teacher"),
    "UnbiasedTeacher": dict(min_score=0.4, unsup_weight=4.0),
    "STAC": dict(min_score=0.4),
}


class Ready(nn.Module):
    """A data preprocessor for batches that are ready."""

    def forward(self, batch: Any, training: bool = False) -> dict[str, Any]:
        return dict(inputs=batch, data_samples=None)


def batch_of(step: int) -> Any:
    """A step's images and labels, of all processes."""
    from reference import detectors

    from ssod.models.views import SemiBatch

    labeled, weak, strong = (detectors.view(SIZES, seed=3 * step + which) for which in range(3))
    there = torch.stack([detectors.turn(0.1, 4.0), detectors.turn(-0.15, -3.0)])
    return SemiBatch(
        labeled=labeled,
        truth=detectors.truth(of=labeled, seed=step),
        weak=weak,
        strong=strong,
        weak_to_strong=there,
        strong_to_weak=there.inverse(),
        strong_labels=detectors.truth(of=strong, seed=step + 1),
    )


def in_double(value: Any) -> Any:
    """The same in float64."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def share_of(value: Any, rows: slice) -> Any:
    """Some images of a batch, a view or labels: a dataclass of things whose first axis is the image."""
    if isinstance(value, Tensor):
        return in_double(value[rows])
    if value is None or isinstance(value, str | int | float):
        return value
    return replace(value, **{name: share_of(each, rows) for name, each in vars(value).items()})


def fix_normalisers(images: int) -> None:
    """Makes every loss a sum over boxes divided by 1,000 for each image of the process.

    The detector's own normalisers count the boxes sampled (and Soft Teacher's weighs them) on one process:
    the mean of two quotients isn't the quotient of two means, on purpose and as in mmdet. Whatever else a
    method does, the mean over processes must be what one process computes.
    """
    from ssod.core import losses

    own = losses.weighted_sum
    losses.weighted_sum = lambda values, weights, _: own(values, weights, 1000.0 * images)


def in_float64() -> None:
    """Lets everything that asks for float32 have float64.

    A convolution of two images and one of four differ by 1e-7, which now and then turns the choice between
    two boxes that overlap by just the threshold: one box in three hundred is another loss.
    """
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign, assignment]
    torch.float32 = torch.float64  # type: ignore[misc]


def train(method: str, steps: int = 20) -> dict[str, Any]:
    """The losses of every step on this process, and a digest of the teacher after the last."""
    from reference import detectors

    from ssod.engine.faults.equality import check_equal_on_ranks
    from ssod.engine.optim import GuardedOptimWrapper

    rank, world = get_dist_info()
    each = PER_STEP // world
    fix_normalisers(each)
    torch.manual_seed(0)
    options = dict(type=method, **METHODS[method])
    model = detectors.semi_detector(options, dict(type="EMATeacher", decay=0.9))
    in_float64()
    model.data_preprocessor = Ready()
    model.double().start()
    wrapped = model if world == 1 else MMDistributedDataParallel(module=model, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.student.parameters(), lr=1e-3, momentum=0.9)
    wrapper = GuardedOptimWrapper(optimizer, clip_grad=dict(max_norm=5.0))
    kept = []
    for step in range(steps):
        model.set_step(step)
        share = share_of(batch_of(step), slice(rank * each, (rank + 1) * each))
        losses = wrapped.train_step(share, wrapper)
        model.after_step(step)
        kept.append({key: float(value) for key, value in losses.items() if "loss" in key})
    check_equal_on_ranks(model, "model")
    digest = hashlib.sha256()
    for value in model.teacher.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    return dict(losses=kept, teacher=digest.hexdigest())


def main(folder: str, method: str, steps: str) -> None:
    """Trains and writes."""
    from ssod.engine.processes import choose_launcher, start_processes
    from ssod.registry import register_all_modules

    torch.set_num_threads(1)
    register_all_modules()
    start_processes(choose_launcher(), 300)
    seen = train(method, int(steps))
    Path(folder, f"{get_dist_info()[0]}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main(*sys.argv[1:])
