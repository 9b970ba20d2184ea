"""Our model for a benchmark: built without a network, warmed up, and our contestants."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from ssod.engine.config import mixed_precision, use_fused_optimizer
from ssod.engine.evaluate import prints_to
from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.saving import checkpoints
from ssod.errors import UserError
from ssod.registry import MODELS
from ssod.study.benchmark.batches import Batch, Batches, fresh
from ssod.study.benchmark.contestants import Contestant, Snapshot
from ssod.study.benchmark.settings import Settings

WARM_RATE = 3e-4


def at_hand(node: Any) -> Any:
    """A model's config without weights that would have to be fetched: pretrained files that are not here."""
    if isinstance(node, Mapping):
        given: Any = node.get("init_cfg")
        fetched = isinstance(given, Mapping) and given.get("type") == "Pretrained"
        if fetched and not Path(str(given.get("checkpoint"))).is_file():
            node = {**node, "init_cfg": None}
        return {key: at_hand(value) for key, value in node.items()}
    return [at_hand(each) for each in node] if isinstance(node, (list, tuple)) else node


def set_precision(config: Config, amp: bool, device: str) -> str:
    """The precision of our steps, written into the config; float32 without `amp`.

    Also there: one iteration is one optimizer step, and that is of all parameters at once, as in training.
    """
    config.optim_wrapper.pop("accumulative_counts", None)
    config.optim_wrapper.precision = precision(amp, device)
    use_fused_optimizer(config, device == "cuda")
    return str(config.optim_wrapper.precision)


def precision(amp: bool, device: str) -> str:
    """What `--amp` computes in on this device; float32 without it."""
    has_gpu = device == "cuda"
    return mixed_precision(has_gpu, has_gpu and torch.cuda.is_bf16_supported()) if amp else "float32"


def build(config: Config, settings: Settings) -> Any:
    """The config's SemiDetector on the device, behind every burn-in; random weights or the checkpoint's."""
    torch.manual_seed(config.randomness.seed)
    with mistakes_in_config(), prints_to(None):
        model = MODELS.build(Config(at_hand(copy.deepcopy(config.model.to_dict())))._cfg_dict)
        model.init_weights()
    model.to(settings.on).start()
    if settings.checkpoint:
        content = checkpoints.load(settings.checkpoint)
        checkpoints.check_weights(model, content, settings.checkpoint)
        model.load_state_dict(content["state_dict"])
    model.train().set_step(config.train_cfg.max_iters)
    return model


def warm(model: Any, batch: Batch, steps: int) -> None:
    """Trains the student on a batch for some supervised steps, and makes the teacher its copy."""
    parameters = [each for each in model.student.parameters() if each.requires_grad]
    wrapper = build_optim_wrapper(
        model.student,
        dict(
            type="GuardedOptimWrapper",
            optimizer=dict(type="AdamW", lr=WARM_RATE),
            clip_grad=dict(max_norm=10.0),
        ),
    )
    for _ in range(steps if parameters else 0):
        model.train_step(fresh(batch), wrapper)
    model.start()


def follow(config: Config, model: Any, wrapper: Any) -> None:
    """The average, as training asks for it."""
    taken = getattr(wrapper, "taken", None)
    model.after_step(config.train_cfg.max_iters, *(() if taken is None else (taken,)))


def variants(config: Config, settings: Settings, found: Sequence[Contestant]) -> list[Contestant]:
    """The method's step in other precisions, as `settings.also` names them: on the same weights and batch."""
    made = []
    for each in found if settings.also else ():
        if each.name != "method":
            continue
        if each.model.teacher is None and "teacher_bf16" in settings.also:
            raise UserError(f"--also teacher_bf16: config {settings.config} has no model.teacher")
        for name in settings.also:
            other = replace(each, name=f"method_{name}")
            if name == "amp":
                wrapper = {**config.optim_wrapper, "precision": precision(True, settings.on)}
                other.optimizer = build_optim_wrapper(each.model, copy.deepcopy(Config(wrapper)._cfg_dict))
                other.follow = partial(follow, config, each.model, other.optimizer)
            else:
                other.around = partial(teacher_in, each.model, torch.bfloat16)
            made.append(other)
    return made


@contextmanager
def teacher_in(model: Any, dtype: torch.dtype) -> Iterator[None]:
    """A block in which the teacher's layers compute in this type: `model.teacher_dtype`."""
    with mock.patch.object(model.teacher, "network_dtype", dtype, create=True):
        yield


def contestants(config: Config, model: Any, batches: Batches) -> list[Contestant]:
    """Our supervised step on L + U labeled images, and our method's on L labeled and U unlabeled ones."""
    snapshot = Snapshot(model)
    given = {"supervised": batches.supervised, "method": batches.semi if model.method else None}
    wrappers = {name: build_optim_wrapper(model, copy.deepcopy(config.optim_wrapper)) for name in given}

    return [
        Contestant(
            name=name,
            model=model,
            optimizer=wrappers[name],
            data=partial(fresh, batch),
            snapshot=snapshot,
            num_images=batches.num_images,
            follow=partial(follow, config, model, wrappers[name]) if name == "method" else None,
        )
        for name, batch in given.items()
        if batch is not None
    ]
