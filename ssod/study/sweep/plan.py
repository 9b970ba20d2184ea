"""The runs of a sweep: each with its name, its resolved config and the hash of it, twins included."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ssod.errors import UserError
from ssod.registry import METHODS, TEACHERS
from ssod.study.sweep.definition import Axes, Definition
from ssod.study.sweep.resolve import Resolver, identity
from ssod.study.sweep.splits import Split

TWIN = "supervised"
SHORT = {"percent": "p", "fold": "f", "seed": "s", "iterations": "i"}
# An option below one of these is a method's own affair: the twin is the same without it.
OF_THE_METHOD = ("model.method", "model.teacher", "stages", "train_dataloader")
MOST_LETTERS = 100


@dataclass(frozen=True)
class Run:
    """One training. axes: what was chosen for it · total: iterations, of all stages together."""

    name: str
    folder: Path
    axes: Axes
    twin: bool
    config: Config
    config_sha256: str
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
        }


def expand(definition: Definition, work_dir: Path, options: Mapping[str, Any] | None = None) -> list[Run]:
    """The runs in their order, each config once, with all axes that lead to it; a twin before its first run.

    options: `--cfg-options`, for every run. Nothing is written. Raises UserError for a mistake in the sweep
    or in a run's config.
    """
    resolver = Resolver(definition, work_dir, options or {})
    runs: dict[str, Run] = {}
    for axes, twin in _choices(definition):
        run = _run(resolver, work_dir, axes, twin)
        first = runs.setdefault(_sameness(run), run)
        if first is not run and _sameness(first, places=True) != _sameness(run, places=True):
            raise UserError(
                f"sweep {definition.path}: the runs {_said(first)} and {_said(run)} differ only in where a "
                "file or the data lie, which does not tell runs apart: give the files different names"
            )
        # The same training under other axes, such as the default of one and of another option.
        first.axes.update({**axes, **first.axes})
    return list(runs.values())


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
    if name in ("method", "unlabeled_ratio"):
        return False
    changed = definition.options.get(name, ())
    if isinstance(changed, Mapping):
        changed = changed.get(value) or changed.get(str(value)) or ()
    paths = [changed] if isinstance(changed, str) else list(changed)
    return not any(f"{path}.".startswith(f"{own}.") for path in paths for own in OF_THE_METHOD)


def _run(resolver: Resolver, work_dir: Path, axes: Axes, twin: bool) -> Run:
    # Late: it brings mmdet's datasets, whose greetings register_all_modules keeps quiet.
    from ssod.engine.offline.provenance import hash_config

    config, split, total = resolver.resolve(axes)
    digest = hash_config(identity(config))
    name = run_name(axes, digest)
    return Run(name, work_dir / name, axes, twin or axes["method"] == TWIN, config, digest, split, total)


def _said(run: Run) -> str:
    """The run's choices, as a mistake's line names them."""
    return "(" + ", ".join(f"{name}={value}" for name, value in run.axes.items()) + ")"


def _sameness(run: Run, places: bool = False) -> str:
    """Equal for runs that train the same: an option that is set to its default is one that is left out.

    places: whether runs that read from different folders are different.
    """
    from ssod.engine.offline.provenance import hash_config

    whole = identity(run.config)
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
