"""Checks of a config against itself: names, batch, sources, weights. One function for each finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mmengine.runner import checkpoint

from ssod import safe_load
from ssod.data.checkup.findings import Finding, count, fails, hurts, note, some
from ssod.engine import config as configs
from ssod.engine.checkup.setup import Setup, walk
from ssod.engine.number_faults import number_faults


def unknown_names(setup: Setup) -> Iterator[Finding]:
    """Names that nothing reads."""
    for fault in configs.name_faults(setup.config):
        yield fails("unknown-name", setup.path, fault, "correct the name, or remove the line")


def missing_parts(setup: Setup) -> Iterator[Finding]:
    """What training can't do without."""
    missing = [name for name in configs.TRAINING_NEEDS if not setup.config.get(name)]
    given = [name for name in configs.VALIDATION_NEEDS if setup.config.get(name)]
    if len(given) == 1:
        missing += [name for name in configs.VALIDATION_NEEDS if name not in given]
    if missing:
        yield fails("config-incomplete", setup.path, f"no {some(missing)}", "inherit them with _base_")


def no_validation(setup: Setup) -> Iterator[Finding]:
    """A run that would end without any metric."""
    if not any(setup.config.get(name) for name in configs.VALIDATION_NEEDS):
        mend = "add val_dataloader and val_evaluator, as in configs/_base_/datasets"
        yield hurts("no-validation", setup.path, "no val_dataloader: the run reports no AP", mend)


def counts_in_epochs(setup: Setup) -> Iterator[Finding]:
    """A schedule that does not count in iterations."""
    for fault in configs.loop_faults(setup.config):
        yield fails("schedule-not-in-iterations", setup.path, fault, "count in iterations")


def refused_numbers(setup: Setup) -> Iterator[Finding]:
    """Numbers that tools/train.py refuses."""
    for fault in number_faults(setup.config):
        yield fails("value-refused", setup.path, fault, "change the value")


def batch_against_counts(setup: Setup) -> Iterator[Finding]:
    """A batch that is not what the sampler draws."""
    for fault in configs.batch_faults(setup.config):
        yield fails("batch-not-sum-of-counts", "train_dataloader", fault, "make them equal")


def counts_against_sources(setup: Setup) -> Iterator[Finding]:
    """As many counts as datasets, each at least 1."""
    sources = [part.name for part in setup.declared if not part.evaluated]
    given = ((setup.config.get("train_dataloader") or {}).get("sampler") or {}).get("counts")
    if given is None:
        return
    if len(given) != len(sources):
        yield fails(
            "counts-not-of-sources",
            "train_dataloader.sampler.counts",
            f"{count(len(given), 'count')} {tuple(given)} for {count(len(sources), 'dataset')}",
            "give one count for each dataset",
        )
    elif any(not isinstance(each, int) or each < 1 for each in given):
        mend = "give each dataset a whole number of at least 1, or leave the dataset out"
        where = "train_dataloader.sampler.counts"
        yield fails("source-without-slot", where, f"counts={tuple(given)}: a source without a slot", mend)


def counts_against_images(setup: Setup) -> Iterator[Finding]:
    """More slots in a step than a source has images."""
    sources = [part for part in setup.parts if not part.evaluated]
    if len(sources) != len(setup.counts):
        return
    for part, slots in zip(sources, setup.counts, strict=True):
        if isinstance(slots, int) and 0 < len(part.images) < slots * setup.world_size:
            yield hurts(
                "more-slots-than-images",
                part.where,
                f"a step takes {slots} x {setup.world_size} images of {len(part.images)}: some come twice",
                "lower sampler.counts and batch_size",
            )


def weights(setup: Setup) -> Iterator[Finding]:
    """Pretrained weights that are not there; for `load_from` nothing is downloaded."""
    for where, path in _weights(setup):
        if "://" in path and where == "load_from":
            what = f"{path} is an address, and load_from takes a file"
            yield fails("weights-missing", where, what, "download it first, and give the path of the file")
        elif "://" not in path and not Path(path).is_file():
            mend = "put the file there; SSOD_WEIGHTS_ROOT names the folder of the shipped configs"
            yield fails("weights-missing", where, f"no file {path}", mend)


def weights_from_network(setup: Setup) -> Iterator[Finding]:
    """Pretrained weights that the first run downloads, unless they lie where it would put them."""
    for where, path in _weights(setup):
        url = _address(path)
        place = safe_load.place_of(url)
        if "://" in path and where != "load_from" and not Path(place).is_file():
            what = f"{path} is downloaded by the first run" + (f" from {url}" if url != path else "")
            mend = f"without a network, {safe_load.without_network(place)}"
            yield note("weights-from-network", where, what, mend)


def _address(name: str) -> str:
    """Where mmengine fetches weights from that go by a model zoo's name; any other name as it is."""
    zoo, _, model = name.partition("://")
    found = None
    if zoo in ("open-mmlab", "openmmlab"):
        found = checkpoint.get_external_models().get(
            checkpoint.get_deprecated_model_names().get(model, model)
        )
    elif zoo in ("torchvision", "modelzoo"):
        found = checkpoint.get_torchvision_models().get(model)
    elif zoo == "mmcls":
        found = checkpoint.get_mmcls_models().get(model)
    return str(found or name)


def _weights(setup: Setup) -> Iterator[tuple[str, str]]:
    """(place in the config, path or address) of each file of weights."""
    for place, node in walk({"model": setup.model}):
        name = "weights" if node.get("type") == "TorchvisionBackbone" else "checkpoint"
        if isinstance(node.get(name), str) and (name == "weights" or node.get("type") == "Pretrained"):
            yield f"{place}.{name}", node[name]
    if setup.config.get("load_from"):
        yield "load_from", str(setup.config.load_from)


def frozen_random_backbone(setup: Setup) -> Iterator[Finding]:
    """Frozen stages with random weights."""
    backbone = setup.detector.get("backbone") or {}
    frozen = max(backbone.get("frozen_stages", 0) or 0, backbone.get("frozen_blocks", 0) or 0)
    given = backbone.get("init_cfg") or backbone.get("weights") or setup.config.get("load_from")
    if frozen > 0 and not given:
        yield hurts(
            "random-weights-frozen",
            "model.detector.backbone",
            f"{count(frozen, 'stage')} frozen, and no pretrained weights: they stay random",
            "name weights (init_cfg, weights or load_from), or freeze nothing",
        )


CHECKS: tuple[Callable[[Setup], Iterator[Finding]], ...] = (
    unknown_names,
    missing_parts,
    no_validation,
    counts_in_epochs,
    refused_numbers,
    batch_against_counts,
    counts_against_sources,
    counts_against_images,
    weights,
    weights_from_network,
    frozen_random_backbone,
)
