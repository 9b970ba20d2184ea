"""Checks of when things happen and how strongly: rate, schedule, burn-in, teacher. One function a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ssod.data.checkup.findings import Finding, hurts, lies, note, some
from ssod.engine.checkup.setup import Setup

# Soft Teacher: 8 GPUs x (1 + 4) images, SGD, rate 0.01.
PUBLISHED_RATE, PUBLISHED_IMAGES = 0.01, 40
# How far a rate may be from the published one, scaled to the images of a step. Clipped gradients and short
# schedules bear more (bccd: 5 times as much).
MAX_RATIO, MAX_RATIO_CLIPPED = 2.0, 20.0
MIN_RATIO = 0.1
HIGH_ADAM_RATE = 5e-3
LATE_SHARE = 0.75  # of training, after which the unsupervised loss is hardly learned from
HIGH_WEIGHT = 4.0  # published for COCO at 1 + 4


def learning_rate(setup: Setup) -> Iterator[Finding]:
    """SGD's rate against the number of images in a step (linear scaling)."""
    wrapper = setup.config.get("optim_wrapper") or {}
    optimizer = wrapper.get("optimizer") or {}
    images = sum(each for each in setup.counts if isinstance(each, int)) * setup.world_size
    images *= wrapper.get("accumulative_counts") or 1
    rate = optimizer.get("lr")
    if optimizer.get("type") != "SGD" or not rate or not images:
        return
    expected = PUBLISHED_RATE * images / PUBLISHED_IMAGES
    ratio = rate / expected
    bound = MAX_RATIO_CLIPPED if wrapper.get("clip_grad") else MAX_RATIO
    if ratio > bound or ratio < MIN_RATIO:
        effect = "it may diverge" if ratio > 1 else "it learns slowly"
        yield hurts(
            "learning-rate-not-scaled",
            "optim_wrapper.optimizer.lr",
            f"{rate:g} with {images} images a step; the published {PUBLISHED_RATE:g} at {PUBLISHED_IMAGES} "
            f"scales to {expected:.2g}: {effect}",
            f"set it to about {expected:.2g}; a recipe for another number of images is scaled as a whole by "
            "tools/train.py --scale-to; --world-size says how many processes will train",
            ratio=ratio,
        )


def adam_rate(setup: Setup) -> Iterator[Finding]:
    """A rate that is SGD's, given to Adam."""
    optimizer = (setup.config.get("optim_wrapper") or {}).get("optimizer") or {}
    rate = optimizer.get("lr") or 0.0
    if str(optimizer.get("type", "")).startswith("Adam") and rate >= HIGH_ADAM_RATE:
        what = f"{rate:g} is a rate for SGD; {optimizer['type']} mostly takes 1e-4 to 1e-3"
        yield hurts("learning-rate-of-adam", "optim_wrapper.optimizer.lr", what, "lower it")


def gradient_clipping(setup: Setup) -> Iterator[Finding]:
    """No bound on the gradient, off the published recipe."""
    if not (setup.config.get("optim_wrapper") or {}).get("clip_grad") and not setup.is_coco:
        yield hurts(
            "no-gradient-clipping",
            "optim_wrapper",
            "no clip_grad: one bad batch may make training diverge",
            "set clip_grad=dict(max_norm=10.0)",
        )


def unreached_milestones(setup: Setup) -> Iterator[Finding]:
    """Drops of the rate behind the end of training."""
    for number, one in enumerate(setup.schedulers):
        late = [step for step in one.get("milestones") or () if step >= setup.max_iters]
        late += [one["begin"]] if one.get("begin", 0) >= setup.max_iters else []
        if late and setup.max_iters:
            yield hurts(
                "milestone-not-reached",
                f"param_scheduler.{number}",
                f"{one.get('type')} acts at {some(late)}, training ends at {setup.max_iters}",
                "scale begin, end and milestones with max_iters",
            )


def schedule_past_the_end(setup: Setup) -> Iterator[Finding]:
    """A rising or falling rate that is cut off."""
    for number, one in enumerate(setup.schedulers):
        end = one.get("end") or 0
        steps = "milestones" in one  # its end may lie anywhere behind the last drop
        begun = one.get("begin", 0) < setup.max_iters
        if setup.max_iters and begun and not steps and end > setup.max_iters and end < 2**31:
            yield hurts(
                "schedule-cut-off",
                f"param_scheduler.{number}",
                f"{one.get('type')} ends at {end}, training at {setup.max_iters}",
                "scale begin, end and T_max with max_iters",
            )


def unsupervised_loss_off(setup: Setup) -> Iterator[Finding]:
    """A burn-in that lasts to the end, or a weight of 0: the run would be a supervised one."""
    ramp = setup.ramp
    if ramp is None or not setup.max_iters:
        return
    if ramp.start >= setup.max_iters or ramp.value == 0:
        what = f"start={ramp.start} of {setup.max_iters} iterations, value={ramp.value:g}"
        yield lies(
            "unsupervised-loss-off",
            "model.method.unsup_weight",
            f"{what}: the unsupervised loss is never on, and the run reports itself as "
            f"{setup.method.get('type')}",
            "lower start, or raise value; for a supervised run set method=None",
        )
    elif ramp.start + ramp.length > LATE_SHARE * setup.max_iters:
        yield hurts(
            "unsupervised-loss-late",
            "model.method.unsup_weight",
            f"full weight from iteration {ramp.start + ramp.length} of {setup.max_iters} on",
            "shorten start and length with max_iters",
        )


def unsupervised_weight_high(setup: Setup) -> Iterator[Finding]:
    """COCO's weight of pseudo boxes on other data."""
    ramp = setup.ramp
    # Mean Teacher's is of another loss, a mean square.
    labels = setup.method.get("type") != "MeanTeacher"
    if ramp is not None and labels and ramp.value >= HIGH_WEIGHT and not setup.is_coco:
        yield hurts(
            "unsupervised-weight-high",
            "model.method.unsup_weight",
            f"{ramp.value:g} is published for COCO at 1 + 4 images; with few labels pseudo boxes take over",
            "begin with 1 to 2",
        )


def method_against_sources(setup: Setup) -> Iterator[Finding]:
    """A method without unlabeled images, or unlabeled images without a method."""
    unlabeled = setup.part("unlabeled")
    if setup.method and unlabeled is None:
        yield lies(
            "method-without-unlabeled",
            "train_dataloader.dataset",
            f"method {setup.method.get('type')} and no unlabeled dataset: the run is a supervised one",
            "add an unlabeled dataset to a ConcatDataset, or set method=None",
        )
    elif not setup.method and unlabeled is not None:
        yield hurts(
            "unlabeled-without-method",
            "model.method",
            "no method: unlabeled images are loaded and never used",
            "name a method, or leave them out",
        )


def slow_teacher(setup: Setup) -> Iterator[Finding]:
    """An average over more steps than there are."""
    teacher = setup.model.get("teacher") or {}
    if teacher.get("type") != "EMATeacher" or not setup.max_iters:
        return
    decay, ramp = float(teacher.get("decay", 0.999)), setup.ramp
    left = setup.max_iters - (ramp.start if ramp is not None else 0)
    if decay >= 1:
        what = f"decay={decay:g}: the teacher never moves"
        yield lies("teacher-never-moves", "model.teacher.decay", what, "use 0.99 to 0.9999")
    elif 0 < left <= (1 / (1 - decay)) * (1 if teacher.get("ramp", True) else 3):
        yield hurts(
            "teacher-lags",
            "model.teacher.decay",
            f"decay={decay:g} averages over {1 / (1 - decay):.0f} steps, and {left} are left after burn-in",
            f"use at most {max(1 - 10 / left, 0):.3g}",
        )


def frozen_teacher(setup: Setup) -> Iterator[Finding]:
    """A frozen teacher without weights."""
    kind = (setup.model.get("teacher") or {}).get("type")
    if kind == "FrozenTeacher" and not setup.config.get("load_from"):
        yield lies(
            "frozen-teacher-random",
            "model.teacher",
            "FrozenTeacher without load_from labels with random weights",
            "name a checkpoint with teacher.* in load_from",
        )


def validation_interval(setup: Setup) -> Iterator[Finding]:
    """One validation only, at the end."""
    interval = (setup.config.get("train_cfg") or {}).get("val_interval", 1000)
    if setup.config.get("val_dataloader") and setup.max_iters and interval > setup.max_iters:
        what = f"val_interval={interval} is more than max_iters={setup.max_iters}: one validation, at the end"
        yield note("one-validation", "train_cfg.val_interval", what, "lower it to see the curve")


CHECKS: tuple[Callable[[Setup], Iterator[Finding]], ...] = (
    learning_rate,
    adam_rate,
    gradient_clipping,
    unreached_milestones,
    schedule_past_the_end,
    unsupervised_loss_off,
    unsupervised_weight_high,
    method_against_sources,
    slow_teacher,
    frozen_teacher,
    validation_interval,
)
