"""What would go wrong with a training, gathered before a GPU is reserved: what tools/doctor.py calls."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ssod.data.checkup.findings import Finding, fact, fails, ranked
from ssod.data.checkup.parts import dataset_configs, described
from ssod.data.doctor import examine_data, read_parts
from ssod.engine.checkup import environment, evaluation, labels, schedule, settings
from ssod.engine.checkup.dry_run import dry_run
from ssod.engine.checkup.guard import found_by
from ssod.engine.checkup.machine import Machine
from ssod.engine.checkup.policy import under_policy
from ssod.engine.checkup.setup import Setup
from ssod.engine.config import complete, default_work_dir, merge_options, read_config
from ssod.engine.evaluate import prints_to
from ssod.engine.faults.data_policy import DataPolicy
from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.runner import warnings_to_log
from ssod.engine.testing import silence
from ssod.errors import UserError
from ssod.registry import MODELS, register_all_modules


def examine(
    config_path: str | Path,
    options: Mapping[str, Any] | None = None,
    work_dir: str | Path | None = None,
    world_size: int | None = None,
    near_duplicates: bool = False,
    decode_all: bool = False,
    try_training: bool = True,
) -> list[Finding]:
    """All findings about a config, its data and this machine, the most harmful first.

    options: what `--cfg-options` gives · work_dir: where training would write, by default what tools/train.py
    takes · world_size: processes that will train, by default WORLD_SIZE or the number of GPUs ·
    near_duplicates, decode_all: look at every image, which takes time · try_training: two real steps, unless
    a finding says that they would fail.

    Raises UserError for a config that can't be read, or options that don't fit it.
    """
    register_all_modules()
    with warnings_to_log(), prints_to(None):
        silence()
        setup = set_up(config_path, options or {}, work_dir, world_size)
        parts, findings = read_parts(setup.config)
        setup = replace(setup, parts=parts)
        findings += check_config(setup, Machine.here(setup.work_dir))
        findings += under_policy(
            examine_data(parts, near_duplicates, decode_all), parts, policy_of(setup.config)
        )
        findings += _attempt(setup, findings, try_training)
    return ranked(findings)


def set_up(
    path: str | Path, options: Mapping[str, Any], work_dir: str | Path | None, world_size: int | None
) -> Setup:
    """The config as far as it can be completed, and where it would run."""
    config = read_config(path)
    with suppress(Exception):  # the checks say it, with whatever else there is
        complete(config, path)
    merge_options(config, options)
    place = Path(work_dir or config.get("work_dir") or default_work_dir(path))
    declared = [described(name, dataset) for name, dataset in dataset_configs(config)]
    processes = world_size or int(os.environ.get("WORLD_SIZE", 0)) or max(torch.cuda.device_count(), 1)
    return Setup(config, str(path), place, declared, (), processes)


def policy_of(config: Config) -> DataPolicy:
    """The config's data policy; the default where what stands there is wrong, which the dry run says."""
    with suppress(UserError):
        return DataPolicy.of(config)
    return DataPolicy()


def check_config(setup: Setup, machine: Machine | None = None) -> list[Finding]:
    """The findings about the config itself, and about a machine for it."""
    checks = (*settings.CHECKS, *evaluation.CHECKS, *schedule.CHECKS, *labels.CHECKS)
    bound = [partial(check, setup) for check in checks]
    if machine is not None:
        bound += [partial(check, setup, machine) for check in environment.CHECKS]
    return found_by(bound, setup)


def _attempt(setup: Setup, findings: list[Finding], try_training: bool) -> Iterator[Finding]:
    """What two steps of training show, or, without them, what building the model does."""
    if any(one.severity == "fails" for one in findings):
        yield fact("dry-run-left-out", "training", "no dry run: mend first what would fail")
    elif try_training:
        yield from dry_run(setup)
    else:
        yield from refused_model(setup.config)


def refused_model(config: Config) -> Iterator[Finding]:
    """What the model's parts object to when they are built."""
    try:
        with mistakes_in_config():
            MODELS.build(copy.deepcopy(config.model))
    except Exception as error:
        line = error.one_line if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        yield fails("model-refused", "model", " ".join(line.split()), "change what the message names")
