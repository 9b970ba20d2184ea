"""Is what `--resume` would go on with the run that the work dir holds? Its config.py says what it was."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ssod.engine.recipe.scaling import scale
from ssod.engine.recipe.step_size import Size, written_for
from ssod.errors import UserError
from ssod.written_config import NotDataError, read_written

NAME = "config.py"
Difference = tuple[str, Any, Any]  # place in the config, value in the work dir, value here

# Which images a data set takes: its files, by name, and the ids of its part of them.
_IMAGES = frozenset({"ann_file", "images", "labels", "only_ids", "except_ids", "indices"})
# Where a run reads and how it computes, but not what: as ssod/engine/offline/provenance.py has it.
_NO_IDENTITY = frozenset({"data_root", "fused", "foreach"})
# Of a detector, what a checkpoint does not depend on: how it is tested, and what its weights began as.
_NOT_OF_A_CHECKPOINT = re.compile(r"\.(test_cfg|init_cfg)\.|\.(weights|init_cfg)$")
_SHOWN = 5  # differences in a line


def check_same_run(work_dir: Path, config: Config) -> str:
    """A line on options that differ from those of the work dir's run; empty for none.

    Raises UserError where method, detector, type of optimizer or training images differ: that is another run.
    Paths count by their last name, for a run may move to another machine. What one of the two leaves out
    may be a default of the other, and is no reason to refuse; nor is a work dir without a readable config.
    """
    try:
        before, now = read_written(work_dir / NAME), config.to_dict()
    except NotDataError:
        return ""
    if not before.keys() >= {"model", "train_dataloader"}:  # cut off, by a version that wrote it in place
        return ""
    for place, old, new in _other_run(before, now):
        raise UserError(
            f"work dir {work_dir} holds another run: {place} is {_shown(old)} there and {_shown(new)} in "
            "this config: choose another --work-dir, or resume with the run's own config"
        )
    scaled = _scaled_places(before, config)
    found = [
        f"{place} {_shown(old)} -> {_shown(new)}"
        for part in ("model", "optim_wrapper", "param_scheduler")
        for place, old, new in _differences(before.get(part), now.get(part), part)
        if place not in scaled
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"resumes with other options: {', '.join(found[:_SHOWN])}{more}" if found else ""


def _other_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Each difference that makes it another run; the method's first."""
    old_model, new_model = (_mapping(each.get("model")) for each in (before, now))
    old_type, new_type = (_type_in(each, "method") for each in (old_model, new_model))
    if not _same("type", old_type, new_type):
        yield "model.method.type", old_type, new_type
    detectors = old_model.get("detector"), new_model.get("detector")
    for place, old, new in _differences(detectors[0], detectors[1], "model.detector"):
        if None not in (old, new) and not _NOT_OF_A_CHECKPOINT.search(place):
            yield place, old, new
    old_type, new_type = (
        _type_in(_mapping(each.get("optim_wrapper")), "optimizer") for each in (before, now)
    )
    if None not in (old_type, new_type) and not _same("type", old_type, new_type):
        yield "optim_wrapper.optimizer.type", old_type, new_type
    old_images, new_images = (
        dict(_images_of(_mapping(each.get("train_dataloader")).get("dataset"), "train_dataloader.dataset"))
        for each in (before, now)
    )
    for place in {**old_images, **new_images}:
        if old_images.get(place) != new_images.get(place):
            yield place, old_images.get(place), new_images.get(place)


def _images_of(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    """What says which images the data sets below a node take, by place; folders don't count."""
    for name, value in _items(node):
        if name in _IMAGES and not isinstance(value, Mapping):
            if value is not None:
                yield f"{place}.{name}", _last_names(value)
        elif name not in ("pipeline", "metainfo"):
            yield from _images_of(value, f"{place}.{name}")


def _last_names(value: Any) -> Any:
    """Paths without their folders; anything else as it is, tuples as lists."""
    if isinstance(value, (list, tuple)):
        return [_last_names(each) for each in value]
    return os.path.basename(value.rstrip("/")) if isinstance(value, str) else value


def _differences(before: Any, now: Any, place: str) -> Iterator[Difference]:
    """Each value below two nodes that is not the same in both; None for what one of them leaves out."""
    both_mappings = isinstance(before, Mapping) and isinstance(now, Mapping)
    old, new = dict(_items(before)), dict(_items(now))
    if both_mappings or (old and new and len(old) == len(new)):
        for name in {**old, **new}:
            if name not in _NO_IDENTITY:
                yield from _differences(old.get(name), new.get(name), f"{place}.{name}")
    elif not _same(place, before, now):
        yield place, before, now


def _items(node: Any) -> Iterator[tuple[str, Any]]:
    """The named parts of a mapping, the numbered ones of a list that holds mappings; nothing of a value."""
    if isinstance(node, Mapping):
        yield from ((str(name), value) for name, value in node.items())
    elif isinstance(node, (list, tuple)) and any(isinstance(each, Mapping) for each in node):
        yield from ((str(number), value) for number, value in enumerate(node))


def _same(place: str, before: Any, now: Any) -> bool:
    """Whether two values mean the same: types without their scope, absolute paths by their last name."""
    if isinstance(before, str) and isinstance(now, str):
        if place.rpartition(".")[2] == "type":
            return before.rpartition(".")[2] == now.rpartition(".")[2]
        if os.path.isabs(before) or os.path.isabs(now):
            return os.path.basename(before) == os.path.basename(now)
    listed = [list(each) if isinstance(each, tuple) else each for each in (before, now)]
    return bool(listed[0] == listed[1])


def _scaled_places(before: Mapping[str, Any], config: Config) -> set[str]:
    """What `--scale-to` changes, where one of the two is scaled and the other not, or otherwise."""
    try:
        old = written_for(Config(dict(before)))
    except (AttributeError, KeyError, TypeError, UserError):  # no config of ours
        return set()
    new = written_for(config)
    if old is None or new is None or (old.world_size, old.counts) == (new.world_size, new.counts):
        return set()
    try:
        return {place for place, _, _ in scale(config, Size(old.world_size, old.counts)).rows}
    except UserError:
        return set()


def _type_in(node: Mapping[str, Any], part: str) -> Any:
    """The type of a node's part; None where there is none."""
    return _mapping(node.get(part)).get("type")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _shown(value: Any) -> str:
    """A value in a few words."""
    if value is None:
        return "(left out)"
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
