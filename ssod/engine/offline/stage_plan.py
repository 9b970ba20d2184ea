"""What the stages of a training are: the plan in a config, each stage's own config, what it depends on."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ssod.data.unlabeled import images_of, split_hash
from ssod.engine.config import check_names, complete
from ssod.engine.mistakes import mistakes_in_config, suggest
from ssod.engine.offline.provenance import hash_config, hash_file
from ssod.errors import UserError
from ssod.models.any_detector import check_bound
from ssod.registry import DATASETS, METHODS

OPTIONS = ("teacher", "min_score", "rounds")
# What a trained network depends on; the rest is how often it is looked at, and where it runs.
TRAINING = ("model", "train_dataloader", "optim_wrapper", "param_scheduler", "randomness", "load_from")


@dataclass(frozen=True)
class Plan:
    """`stages=dict(...)` of a config, which makes its training one of stages 1, 2 and 3.

    teacher: changes to the config for stage 1, such as dict(train_cfg=dict(max_iters=...)); without any it
    trains on the labeled images as long as the student trains on all · min_score: scores below it are left
    out of the file, by default those that the method does not use · rounds: how often stages 2 and 3 are
    done, from the second time on with the last student's labels.
    """

    teacher: Mapping[str, Any]
    min_score: float
    rounds: int

    @staticmethod
    def of(config: Config) -> "Plan":
        """The plan of a config; UserError for what can't be done in stages."""
        given = dict(config.stages)
        for name in given:
            if name not in OPTIONS:
                near = suggest(name, OPTIONS)
                raise UserError(f"stages has no option {name!r}{near} (it takes {', '.join(OPTIONS)})")
        rounds = given.get("rounds", 1)
        if not isinstance(rounds, int) or rounds < 1:
            raise UserError(f"stages.rounds is {rounds!r}: a whole number of at least 1")
        _parts(config)
        with mistakes_in_config():
            method = METHODS.build(config.model.method) if config.model.get("method") else None
        if method is None or not method.needs_file:
            raise UserError("stages are for a method that learns from labels in a file, such as STAC")
        used = method.selection.floor
        min_score = used if given.get("min_score") is None else given["min_score"]
        if min_score > used:
            raise UserError(
                f"stages.min_score={min_score} leaves out boxes that model.method.min_score={used} asks for: "
                "lower the first, or raise the second"
            )
        detector = config.model.detector
        check_bound(str(detector.get("type")), detector.get("test_cfg"), min_score)
        return Plan(given.get("teacher") or {}, float(min_score), rounds)

    def names(self) -> list[str]:
        """The stages' folders, in order: `stage_1_teacher`, `stage_2_labels`, `stage_3_student`, ..."""
        kinds = ["teacher", *["labels", "student"] * self.rounds]
        return [f"stage_{number}_{kind}" for number, kind in enumerate(kinds, 1)]


def _parts(config: Config) -> tuple[Any, Any]:
    """The configs of the labeled and of the pseudo-labeled dataset."""
    parts: Any = config.train_dataloader.dataset.get("datasets") or ()
    counts: Any = (config.train_dataloader.get("sampler") or {}).get("counts") or ()
    if len(parts) != 2 or len(counts) != 2 or parts[1].get("type") != "PseudoLabeled":
        raise UserError(
            "stages need a train_dataloader of two datasets and two counts, labeled images and then a "
            "PseudoLabeled, as in configs/stac"
        )
    if parts[1].get("labels") is not None:
        raise UserError(
            f"the PseudoLabeled dataset has labels={parts[1].labels}, which stages would write: leave them "
            "out to have them written, or leave out stages to train on that file"
        )
    return parts[0], parts[1]


def teacher_config(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config of stage 1: the supervised twin on the labeled images, with the plan's changes."""
    made = _copy(config)
    labeled, _ = _parts(config)
    made.model.method = made.model.teacher = None
    count = made.train_dataloader.sampler.counts[0]
    made.train_dataloader.dataset = copy.deepcopy(labeled)
    made.train_dataloader.sampler.counts = (count,)
    made.train_dataloader.batch_size = count
    check_names(Config(dict(changes)), "stages.teacher")
    made.merge_from_dict(dict(changes))
    return complete(made, "stages.teacher")


def student_config(config: Config, labels: Path) -> Config:
    """The config of stage 3: the whole config, with the labels of stage 2."""
    made = _copy(config)
    _parts(made)[1].labels = str(labels)
    return made


def _copy(config: Config) -> Config:
    made = Config(copy.deepcopy(config.to_dict()))
    made.pop("stages")
    return made


def unlabeled_dataset(config: Config) -> Any:
    """The dataset of the unlabeled images, without pipeline and labels."""
    _, pseudo = _parts(config)
    with mistakes_in_config():
        return DATASETS.build({**pseudo.dataset, "pipeline": []})


def training_provenance(config: Config) -> dict[str, Any]:
    """What a trained stage depends on: the config, the labeled images, and the pseudo labels if any."""
    known = {name: copy.deepcopy(config.get(name)) for name in TRAINING}
    known["max_iters"] = config.train_cfg.max_iters
    dataset = known["train_dataloader"]["dataset"]
    labeled, pseudo = dataset.get("datasets") or (dataset, None)
    labels = None if pseudo is None else pseudo.pop("labels")
    with mistakes_in_config():
        images = images_of(DATASETS.build({**labeled, "pipeline": []}))
    provenance = {
        "config_sha256": hash_config(known),
        "split_sha256": split_hash(images.images),
    }
    return provenance if labels is None else {**provenance, "labels_sha256": hash_file(labels)}
