"""The runs of a sweep: each with its name, its resolved config and the hash of it, twins included."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ssod.errors import UserError
from ssod.registry import METHODS, TEACHERS
from ssod.study.sweep.definition import OWN_AXES, TWIN, Axes, Definition
from ssod.study.sweep.resolve import Resolver, identity, is_of_the_method
from ssod.study.sweep.splits import Split
from ssod.study.sweep.state import folders_by_hash

SHORT = {"percent": "p", "fold": "f", "seed": "s", "iterations": "i"}
MOST_LETTERS = 100


@dataclass(frozen=True)
class Run:
    """One training.

    axes: what was chosen for it · training_sha256: equal for configs that train the same, also where one
    says what the other leaves out · total: iterations, of all stages together.
    """

    name: str
    folder: Path
    axes: Axes
    twin: bool
    config: Config
    config_sha256: str
    training_sha256: str
    split: Split | None
    total: int

    def describe(self, sweep: str) -> dict[str, Any]:
        """The content of run.json."""
        return {
            "sweep": sweep,
            "name": self.name,
            "axes": self.axes,
            "twin": self.twin,
            "config_sha256": self.config_sha256,
            "training_sha256": self.training_sha256,
        }


def expand(definition: Definition, work_dir: Path, options: Mapping[str, Any] | None = None) -> list[Run]:
    """The runs in their order, each config once, with all axes that lead to it; a twin before its first run.

    options: `--cfg-options`, for every run. A run that the work dir has under another name, of a time when
    the sweep had other axes, keeps that. Nothing is written. Raises UserError for a mistake in the sweep or
    in a run's config.
    """
    resolver = Resolver(definition, work_dir, options or {})
    runs: dict[str, Run] = {}
    for axes, twin in _choices(definition):
        run = _run(resolver, work_dir, axes, twin)
        first = runs.setdefault(run.training_sha256, run)
        if first is not run:
            _check_same(definition, first, run)
        # The same training under other axes, such as the default of one and of another option.
        first.axes.update({**axes, **first.axes})
    _check_splits(definition, runs.values())
    there = folders_by_hash(work_dir)
    return [
        _where_it_lies(run, there.get(run.training_sha256) or there.get(run.config_sha256))
        for run in runs.values()
    ]


def _check_same(definition: Definition, first: Run, run: Run) -> None:
    """Raises UserError for two choices that a config does not tell apart, though they seem to be meant to."""
    both = f"sweep {definition.path}: the runs {_said(first)} and {_said(run)}"
    if _sameness(first.config, places=True) != _sameness(run.config, places=True):
        raise UserError(
            f"{both} differ only in where a file or the data lie, which does not tell runs apart: "
            "give the files different names"
        )
    for name, value in run.axes.items() if not (first.twin or run.twin) else ():
        if str(first.axes.get(name, value)) != str(value):
            raise UserError(
                f"{both} train the same: {name} changes nothing in them"
                + (f"; name it in the path, as {{{name}}}" if name in ("method", "percent", "fold") else "")
            )


def _check_splits(definition: Definition, runs: Iterable[Run]) -> None:
    """Raises UserError where two files would be drawn from into the same names."""
    sources: dict[str, Path] = {}
    for split in (run.split for run in runs if run.split is not None):
        source = sources.setdefault(split.name, split.annotations)
        if source != split.annotations:
            raise UserError(
                f"sweep {definition.path}: splits of {source} and of {split.annotations} would both be "
                f"{split.name}: make two sweeps of it, or give one of the files another name"
            )


def _where_it_lies(run: Run, there: Path | None) -> Run:
    """The run, in the folder that it has already."""
    return run if there is None else replace(run, name=there.name, folder=there)


def _choices(definition: Definition) -> Iterator[tuple[Axes, bool]]:
    """The axes of each run and whether it is a twin."""
    grid = [[(name, value) for value in values] for name, values in definition.axes.items()]
    for chosen in definition.runs or [{}]:
        for values in product(*grid):
            axes = {**dict(values), **chosen}
            if "method" not in axes:
                raise UserError(f"sweep {definition.path}: a run has no method: name it in axes or runs")
            if definition.supervised is not None:
                yield _twin_of(definition, axes), True
            if definition.supervised is None or axes["method"] != TWIN:
                yield axes, False


def _twin_of(definition: Definition, axes: Axes) -> Axes:
    """The axes that the supervised twin of a run shares with it."""
    shared = {name: value for name, value in axes.items() if _is_shared(definition, name, value)}
    return {"method": TWIN, **shared}


def _is_shared(definition: Definition, name: str, value: Any) -> bool:
    """Whether it changes anything that is not the method's alone."""
    if name in OWN_AXES:
        return name not in ("method", "unlabeled_ratio")
    changed = definition.changes_of(name, value)
    return not changed or not all(map(is_of_the_method, changed))


def _run(resolver: Resolver, work_dir: Path, axes: Axes, twin: bool) -> Run:
    # Late: it brings mmdet's datasets, whose greetings register_all_modules keeps quiet.
    from ssod.engine.offline.provenance import hash_config

    config, split, total = resolver.resolve(axes)
    digest = hash_config(identity(config))
    name, twin = run_name(axes, digest), twin or axes["method"] == TWIN
    return Run(name, work_dir / name, axes, twin, config, digest, _sameness(config), split, total)


def _said(run: Run) -> str:
    """The run's choices, as a mistake's line names them."""
    return "(" + ", ".join(f"{name}={value}" for name, value in run.axes.items()) + ")"


def _sameness(config: Config, places: bool = False) -> str:
    """Equal for configs that train the same: an option that is set to its default is one that is left out.

    places: whether configs that read from different folders are different.
    """
    from ssod.engine.offline.provenance import hash_config

    whole = identity(config)
    for part, registry in (("method", METHODS), ("teacher", TEACHERS)):
        node = whole["model"].get(part) or {}
        kind = registry.get(node["type"]) if node.get("type") else None
        for name, option in inspect.signature(kind).parameters.items() if kind is not None else ():
            if option.default is not option.empty:
                node.setdefault(name, option.default)
    return hash_config(whole, places)


def run_name(axes: Axes, digest: str) -> str:
    """A folder's name that says the axes: `soft_teacher-p10-f1-s0-3fa94c1e`."""
    words = [axes["method"]]
    words += [
        f"{SHORT.get(name, f'{name}_')}{value}"
        for name, value in axes.items()
        if name not in ("method", "seed")
    ]
    words += [f"s{axes['seed']}"] if "seed" in axes else []
    said = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", str(word)).strip("._") for word in words)
    return f"{said[:MOST_LETTERS]}-{digest[:8]}"
