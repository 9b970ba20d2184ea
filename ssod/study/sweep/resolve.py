"""From a choice of axes to the config that trains: which file, scaled how, with which options and images."""

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS

from ssod.engine.config import HELPER_NAMES, complete, load_config, merge_options, read_config
from ssod.engine.loading import LOADERS
from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.recipe.schedule_length import at_length
from ssod.errors import UserError
from ssod.registry import METHODS, TEACHERS
from ssod.study.sweep.definition import TWIN, Axes, Definition
from ssod.study.sweep.splits import Split, set_split

# How a run is looked at and where it is computed: another value is the same run.
NO_IDENTITY = frozenset(
    {
        "default_hooks",
        "env_cfg",
        "hidden_truth",
        "launcher",
        "log_level",
        "log_processor",
        "visualizer",
        "work_dir",
        "written_for",
    }
)
# An axis' option below one of these is a method's own affair: the twin is the same without it.
OF_THE_METHOD = ("model.method", "model.teacher", "stages", "train_dataloader")
# What a twin has nothing of: other runs' options for it pass it by.
NOT_IN_TWINS = ("model.method", "stages")


def is_of_the_method(option: str) -> bool:
    """Whether a supervised twin does without the option where an axis sets it."""
    return _is_below(option, OF_THE_METHOD)


def _is_below(option: str, names: Iterable[str]) -> bool:
    return any(f"{option}.".startswith(f"{name}.") for name in names)


def identity(config: Config) -> dict[str, Any]:
    """What of a run's config makes it the run it is."""
    return {name: value for name, value in config.to_dict().items() if name not in NO_IDENTITY | HELPER_NAMES}


class Resolver:
    """Makes the configs of a sweep's runs; a file is read once."""

    def __init__(self, definition: Definition, work_dir: Path, options: Mapping[str, Any]) -> None:
        self.definition, self.work_dir, self.options = definition, work_dir, options
        self.loaded: dict[Path, tuple[Config, dict[str, Any]]] = {}

    def resolve(self, axes: Axes) -> tuple[Config, Split | None, int]:
        """The run's config, the split that has to be drawn for it, and its iterations."""
        method = axes["method"]
        try:
            return self._resolve(method, axes)
        except UserError as error:
            chosen = ", ".join(f"{name}={value}" for name, value in axes.items())
            raise UserError(f"sweep {self.definition.path}, run {chosen}: {error.one_line}") from error

    def _resolve(self, method: str, axes: Axes) -> tuple[Config, Split | None, int]:
        definition, own = self.definition, dict[str, Any]()
        if twin := method == TWIN and definition.supervised is not None:
            path = definition.fill(str(definition.supervised), axes)
        else:
            path, own = definition.file_of(method, axes)
        config, raw = self._load(path)
        changes = {**own, **self._changes(axes, twin)}
        config = self._at_length(config, axes, changes)
        if "unlabeled_ratio" in axes:
            _set_ratio(config, axes["unlabeled_ratio"])
        merge_options(config, changes)
        split = None
        if definition.splits is not None and ("percent" in axes or "fold" in axes):
            if "percent" not in axes:
                raise UserError("a fold without a percent names no split: give both")
            split = set_split(config, definition.splits, axes["percent"], axes.get("fold", 1), self.work_dir)
        complete(config, path)
        total = _iterations(config)
        _check_parts(config)
        return _tidy(config, raw), split, total

    def _load(self, path: Path) -> tuple[Config, dict[str, Any]]:
        """The completed config, and which loaders say themselves how many workers they have."""
        if path not in self.loaded:
            raw = read_config(path)
            said = {name: dict(raw[name]) for name in LOADERS if raw.get(name)}
            self.loaded[path] = load_config(path), said
        config, said = self.loaded[path]
        return Config(config.to_dict()), said

    def _changes(self, axes: Axes, twin: bool) -> dict[str, Any]:
        """The options of all runs, of the values of axes, and of the command line."""
        varied: dict[str, Any] = {}
        for name, value in axes.items():
            changes = self.definition.changes_of(name, value)
            if name == "seed":
                changes = {"randomness.seed": value, **changes}
            for option, other in product(self.options, changes):
                if _is_below(option, [other]) or _is_below(other, [option]):
                    raise UserError(f"--cfg-options {option}: axis {name} sets {other}: leave one out")
            varied |= changes
        first, last = self.definition.cfg_options, self.options
        if twin:
            first, last = _without(first, NOT_IN_TWINS), _without(last, NOT_IN_TWINS)
            varied = _without(varied, OF_THE_METHOD)
        return {**first, **varied, **last}

    def _at_length(self, config: Config, axes: Axes, changes: Mapping[str, Any]) -> Config:
        iterations = axes.get("iterations", self.definition.iterations)
        if iterations is None:
            return config
        if "train_cfg.max_iters" in changes:
            raise UserError("iterations and train_cfg.max_iters both say how long to train: leave one out")
        return at_length(config, iterations)


def _without(options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if not _is_below(option, names)}


def _set_ratio(config: Config, ratio: float) -> None:
    """Sets the unlabeled images of a batch to `ratio` times the labeled ones."""
    sampler: Any = config.train_dataloader.get("sampler") or {}
    counts = tuple(sampler.get("counts") or ())
    if len(counts) != 2 or counts[0] * ratio != int(counts[0] * ratio) or ratio <= 0:
        raise UserError(
            f"unlabeled_ratio={ratio} does not fit sampler.counts={counts}: whole images are needed"
        )
    sampler.counts = (counts[0], int(counts[0] * ratio))
    config.train_dataloader.batch_size = sum(sampler.counts)


def _iterations(config: Config) -> int:
    """The iterations of a run, those of all its stages together."""
    last = int(config.train_cfg.max_iters)
    if "stages" in config:
        # Late: it brings mmdet's datasets, whose greetings register_all_modules keeps quiet.
        from ssod.engine.offline.stage_plan import Plan, teacher_config

        plan = Plan.of(config)
        return int(teacher_config(config, plan.teacher).train_cfg.max_iters) + plan.rounds * last
    return last


def _check_parts(config: Config) -> None:
    """Raises UserError for options that a run's method, teacher or optimizer does not take."""
    model, wrapper = config.model, config.optim_wrapper
    try:
        with mistakes_in_config():
            if model.get("method") and "stages" not in config:  # a plan has checked that
                METHODS.build(model.method)
            if model.get("teacher"):
                TEACHERS.build(model.teacher)
            parameter = torch.nn.Parameter(torch.zeros(1))
            OPTIMIZERS.build({**wrapper.optimizer, "params": [parameter]})
    except (TypeError, ValueError) as error:
        raise UserError(f"config: {' '.join(str(error).split())}") from error


def _tidy(config: Config, said: Mapping[str, Any]) -> Config:
    """The config without helper variables, and without workers that were counted on this machine."""
    for name in list(config.keys()):
        if name.startswith("_") or name.isupper():
            config.pop(name)
    for name, loader in said.items():
        if loader.get("num_workers") is None:
            config[name].pop("num_workers", None)
            if "persistent_workers" not in loader:
                config[name].pop("persistent_workers", None)
    return config
