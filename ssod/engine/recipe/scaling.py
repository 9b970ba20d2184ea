"""`--scale-to WORLDxLABELED+UNLABELED`: a recipe at another number of images a step, all of it together."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mmengine.config import Config

from ssod.engine.recipe.scaling_rules import Factors, scale_values, spell_out
from ssod.engine.recipe.step_size import Size, written_for
from ssod.errors import UserError

# Options that would say again what the size says.
OWN_OPTIONS = ("train_dataloader.batch_size", "train_dataloader.sampler.counts")
ABSENT = "-"
Row = tuple[str, Any, Any]  # place in the config, value before, value after


@dataclass(frozen=True)
class Scaled:
    """A config at another size. rows: each value that was changed · notes: lines on what else to know."""

    config: Config
    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """The notes and a table, a line for each row."""
        table = [("", "before", "after"), *((name, _shown(a), _shown(b)) for name, a, b in self.rows)]
        widths = [max(len(row[column]) for row in table) for column in (0, 1)]
        lines = [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in table] if self.rows else []
        return "\n".join([*self.notes[:1], *lines, *self.notes[1:]])


def _shown(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def at_size(
    config: Config, wanted: str | None, options: Mapping[str, Any], world_size: int
) -> tuple[Config, str]:
    """The config to train on `world_size` processes, scaled where `--scale-to` is given; what to say of it.

    wanted: the option's text or None · options: those of `--cfg-options`, which are in the config already.
    """
    written = written_for(config)
    if wanted is None:
        return config, _remark(written, Size.of(config, world_size))
    size = Size.parse(wanted)
    if size.world_size != world_size:
        started = "1 process was" if world_size == 1 else f"{world_size} processes were"
        raise UserError(
            f"--scale-to {wanted} is for {size.world_size} processes and {started} started: start "
            f"{size.world_size} (torchrun --nproc-per-node, srun --ntasks), or give {world_size}x..."
        )
    for option in options:
        if any(f"{option}.".startswith(f"{own}.") for own in OWN_OPTIONS):
            raise UserError(f"--cfg-options {option} and --scale-to {wanted} both say it: leave one out")
    scaled = scale(config, size)
    return scaled.config, str(scaled)


def _remark(written: Size | None, size: Size) -> str:
    """One line where a run has another size than its config is written for; else nothing."""
    if written is None or written == size:
        return ""
    return (
        f"rate and schedule are written for {written}, here is {size}: --scale-to {size.as_typed()} "
        "would scale them (docs/cluster.md)"
    )


def scale(config: Config, size: Size) -> Scaled:
    """The config at another size; what its optimizer gathers (`accumulative_counts`) stays.

    Rate, warm-up, milestones, lengths, intervals, averages, burn-in and ramp are scaled together
    (scaling_rules.py), and `written_for` says the new size, so that scaling again starts from there. A
    training in stages has its teacher scaled by the labeled images. Raises UserError for a size that does
    not fit the config, and for what no rule is known.
    """
    old = _old_size(config, size)
    new = Size(size.world_size, size.counts, Size.of(config, 1).accumulative_counts)
    if new == old:
        return Scaled(config, notes=[f"--scale-to {size}: nothing changes, the config is written for it"])
    made = _scaled(config, old, new)
    rows: list[Row] = [("images an optimizer step", _step(old), _step(new))]
    seen = "images seen by the student" if "stages" in config else "images seen"
    rows.append((seen, old.images(config.train_cfg.max_iters), new.images(made.train_cfg.max_iters)))
    rows += _differences(_spelled_out(config), made)
    if "stages" in config:
        rows += _scale_teacher(config, made, old, new)
    notes = [
        f"--scale-to {size}: {new.a_step} images an optimizer step, {Fraction(new.a_step, old.a_step)} times "
        f"the {old.a_step} that the config is written for ({old})"
    ]
    ratios = [Fraction(sum(each.counts[1:]), each.counts[0]) for each in (old, new)]
    if ratios[0] != ratios[1]:
        notes.append(
            f"this changes the recipe: unlabeled images for each labeled one: {ratios[1]}, not {ratios[0]}; "
            "unsup_weight stays, which was chosen for the latter"
        )
    return Scaled(made, rows, notes)


def _step(size: Size) -> str:
    return size.images(size.accumulative_counts)


def _old_size(config: Config, size: Size) -> Size:
    """The size a config is written for; UserError where it doesn't say, or can't have the other one."""
    old = written_for(config)
    if old is None:
        raise UserError(
            f"--scale-to {size}: the config does not say for how many processes it is written: add "
            "written_for=dict(world_size=...) to it"
        )
    if len(old.counts) != len(size.counts):
        parts = "labeled images alone" if len(old.counts) == 1 else f"{len(old.counts)} datasets"
        like = Size(size.world_size, old.counts).as_typed()
        raise UserError(f"--scale-to {size}: the config trains on {parts}: give something like {like}")
    return old


def _spelled_out(config: Config) -> Config:
    made = Config(copy.deepcopy(config.to_dict()))
    spell_out(made)
    return made


def _scaled(config: Config, old: Size, new: Size) -> Config:
    """A copy of the config, scaled; its stages are as before."""
    made = _spelled_out(config)
    loader = made.train_dataloader
    sampler: Any = loader.get("sampler") or {}
    if "counts" in sampler:
        sampler.counts = new.counts
    for node in (loader, sampler):
        if "batch_size" in node:
            node.batch_size = sum(new.counts)
    made.written_for = dict(world_size=new.world_size)
    if new.accumulative_counts > 1:
        made.written_for.accumulative_counts = new.accumulative_counts
    factors = Factors(Fraction(new.an_iteration, old.an_iteration), Fraction(new.a_step, old.a_step))
    scale_values(made, factors)
    return made


def _scale_teacher(config: Config, made: Config, old: Size, new: Size) -> Iterator[Row]:
    """Sets `stages.teacher` of the scaled config to what the teacher needs; the rows of the table.

    The teacher sees labeled images alone. It is scaled by these; what that makes different from the
    student's is written to `stages.teacher`, which at the recipe's ratio is only what stood there.
    """
    from ssod.engine.offline.stage_plan import teacher_config  # late: it brings mmdet's datasets

    changes: dict[str, Any] = copy.deepcopy(dict(config.stages.get("teacher") or {}))
    if {"batch_size", "sampler"} & set(changes.get("train_dataloader") or {}):
        raise UserError("--scale-to: stages.teacher has a batch of its own: leave it out of train_dataloader")
    before = teacher_config(_spelled_out(config), changes)
    own = Size.of(before, new.world_size).accumulative_counts
    sizes = (
        Size(old.world_size, old.counts[:1], old.accumulative_counts),
        Size(new.world_size, new.counts[:1], own),
    )
    after = _scaled(before, *sizes)
    iterations = before.train_cfg.max_iters, after.train_cfg.max_iters
    yield "images seen by the teacher", sizes[0].images(iterations[0]), sizes[1].images(iterations[1])
    for place, _, value in list(_differences(teacher_config(made, changes), after)):
        yield f"stages.teacher.{place}", _at(before, place), value
        *parents, name = place.split(".")
        if "param_scheduler" in (name, *parents):  # a list, which changes replace as a whole
            changes["param_scheduler"] = after.to_dict()["param_scheduler"]
            continue
        node = changes
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    if changes or "teacher" in made.stages:
        made.stages.teacher = changes


def _differences(before: Any, after: Any, place: str = "") -> Iterator[Row]:
    """Each value below a node of a config that is another one afterwards."""
    if isinstance(before, Config):
        before, after = before._cfg_dict, after._cfg_dict
    if isinstance(after, Mapping) and isinstance(before, Mapping):
        for name, value in after.items():
            yield from _differences(before.get(name, ABSENT), value, f"{place}.{name}" if place else name)
    elif _holds_dicts(before) and _holds_dicts(after) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from _differences(*pair, f"{place}.{number}")
    elif before != after:
        yield place, before, after


def _holds_dicts(node: Any) -> bool:
    return isinstance(node, (list, tuple)) and any(isinstance(each, Mapping) for each in node)


def _at(node: Any, place: str) -> Any:
    """The value at a place that `_differences` named; ABSENT where there is none."""
    for name in place.split("."):
        if isinstance(node, (list, tuple)):
            node = node[int(name)] if int(name) < len(node) else ABSENT
        else:
            node = node.get(name, ABSENT) if hasattr(node, "get") else ABSENT
    return node
