"""Reading a sweep file: its names, checked, with what it leaves out filled in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssod.engine.config import read_config
from ssod.engine.mistakes import suggest
from ssod.errors import UserError, check_choice
from ssod.study.sweep.shape import check_content, check_value

NAMES = (
    "name",
    "data",
    "configs",
    "supervised",
    "axes",
    "runs",
    "options",
    "cfg_options",
    "iterations",
    "splits",
    "gpus",
    "slurm",
)
# Axes with a meaning of their own; any other needs an entry in `options`.
OWN_AXES = ("method", "percent", "fold", "seed", "iterations", "unlabeled_ratio")
SPLIT_NAMES = ("protocol", "annotations", "seed", "stratified", "files")
TWIN = "supervised"  # the method of a twin
Axes = dict[str, Any]


@dataclass(frozen=True)
class Definition:
    """A sweep as its file says it.

    configs: a path with `{method}` and other axes to fill in, or a dict of method -> path or
    dict(config=path, options={...}), all of them where no axis says otherwise; relative paths begin at the
    file's folder · supervised: the path of the
    twin's config, None for no twins · axes: axis -> values, of which the grid is made · runs: explicit
    choices of axes, each combined with the grid · options: axis -> the config option (or options) that takes
    the value, or value -> options · cfg_options: of all runs · data: fills `{data}` in paths · iterations: to
    which every schedule is scaled · splits: where `percent` and `fold` come from (splits.py) · gpus:
    of a run, a process each · slurm: submitit's parameters.
    """

    path: Path
    name: str
    configs: str | Mapping[str, Any]
    supervised: str | None = None
    axes: Mapping[str, list[Any]] = field(default_factory=dict)
    runs: list[Axes] = field(default_factory=list)
    options: Mapping[str, Any] = field(default_factory=dict)
    cfg_options: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    iterations: int | None = None
    splits: Mapping[str, Any] | None = None
    gpus: int | None = None
    slurm: Mapping[str, Any] = field(default_factory=dict)

    def file_of(self, method: str, axes: Axes) -> tuple[Path, dict[str, Any]]:
        """The config file of a run and the options that its method brings."""
        entry: Any = self.configs if isinstance(self.configs, str) else self.configs.get(method)
        if entry is None:
            raise UserError(f"sweep {self.path}: configs has no {method!r}{suggest(method, self.configs)}")
        options: dict[str, Any] = {}
        if isinstance(entry, Mapping):
            entry, options = entry["config"], dict(entry.get("options") or {})
        return self.fill(entry, axes | {"method": method}), options

    def changes_of(self, axis: str, value: Any) -> dict[str, Any]:
        """The config options that a value of an axis stands for; none where the axis has its own meaning."""
        known = self.options.get(axis, ())
        if isinstance(known, Mapping):
            if value not in known:
                raise UserError(f"options.{axis} does not say what {value!r} is")
            return dict(known[value])
        return dict.fromkeys([known] if isinstance(known, str) else known, value)

    def fill(self, text: str, axes: Axes) -> Path:
        """A path with the values of axes filled in, beginning at the sweep file's folder."""
        try:
            name = text.format_map({"data": self.data, **axes})
        except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
            raise UserError(
                f"sweep {self.path}: {text!r} names {error}, which is no axis of the run: give it a value"
            ) from None
        return (self.path.parent / name).resolve()


def read_definition(path: str | Path) -> Definition:
    """The definition in a sweep file; UserError for anything that would do nothing or can't be done."""
    path = Path(path)
    content = {
        key: value
        for key, value in read_config(path).to_dict().items()
        if not key.startswith("_") and not key.isupper()
    }
    where = f"sweep {path}"
    for name in content:
        if name not in NAMES:
            raise UserError(
                f"{where}: nothing reads {name!r}{suggest(name, NAMES)}; names: {', '.join(NAMES)}"
            )
    if not content.get("configs"):
        raise UserError(
            f"{where} has no configs: say which config a method has, such as '../{{method}}/shapes.py'"
        )
    check_content(content, where)
    content["name"] = content.get("name") or path.stem
    several = isinstance(content["configs"], Mapping)
    if several and not any("method" in each for each in (content.get("axes", {}), *content.get("runs", ()))):
        content["axes"] = {**content.get("axes", {}), "method": list(content["configs"])}
    made = Definition(path=path.resolve(), **content)
    _check(made, where)
    return made


def _check(made: Definition, where: str) -> None:
    """Raises UserError for axes that nothing reads, and for splits that can't be found."""
    axes = {*made.axes, *(name for run in made.runs for name in run)}
    for name in sorted(axes):
        if name not in OWN_AXES and name not in made.options:
            known = (*OWN_AXES, *made.options)
            raise UserError(
                f"{where}: axis {name!r} changes nothing{suggest(name, known)}: name in options what it sets"
            )
    for name, values in made.axes.items():
        if not isinstance(values, list | tuple) or not values:
            raise UserError(f"{where}: axis {name} is {values!r}: give a list of values")
    for name, value in [
        *((name, value) for name, values in made.axes.items() for value in values),
        *(chosen for run in made.runs for chosen in run.items()),
    ]:
        check_value(name, value, made.options, where)
    for name in made.options:
        if name not in axes:
            raise UserError(f"{where}: options has {name!r}, which no run has as an axis")
    if ("percent" in axes or "fold" in axes) and not made.splits and not _in_paths(made):
        raise UserError(f"{where}: percent and fold need splits=dict(...), which says where the splits are")
    for name in made.splits or ():
        check_choice(where, "splits option", name, SPLIT_NAMES)


def _in_paths(made: Definition) -> bool:
    """Whether percent or fold stand in the configs' paths."""
    return any(f"{{{name}}}" in str(made.configs) for name in ("percent", "fold"))
