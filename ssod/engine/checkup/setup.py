"""What the checks of a config look at: the config, its datasets, and where it would run."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ssod.core.schedules import Ramp
from ssod.data.checkup.parts import Part
from ssod.engine.config import KNOWN_NAMES
from ssod.registry import METHODS

COCO_CLASSES = 80


@dataclass(frozen=True)
class Setup:
    """path: of the config · declared: the datasets as the config describes them · parts: those that could be
    read, with their records · world_size: processes that will train.
    """

    config: Config
    path: str
    work_dir: Path
    declared: Sequence[Part]
    parts: Sequence[Part]
    world_size: int = 1

    def part(self, name: str) -> Part | None:
        """The declared dataset of that name."""
        return next((part for part in self.declared if part.name == name), None)

    @property
    def num_classes(self) -> int:
        """How many classes the labeled dataset names."""
        labeled = self.part("labeled")
        return len(labeled.classes) if labeled is not None else 0

    @property
    def is_coco(self) -> bool:
        """Whether the classes are COCO's 80, for which the published recipes were made."""
        return self.num_classes == COCO_CLASSES

    @property
    def max_iters(self) -> int:
        """The length of training; 0 where the config does not say."""
        return int((self.config.get("train_cfg") or {}).get("max_iters") or 0)

    @property
    def counts(self) -> list[int]:
        """Images of each source in one process's batch."""
        loader = self.config.get("train_dataloader") or {}
        given = (loader.get("sampler") or {}).get("counts")
        return list(given or [loader.get("batch_size") or 0])

    @property
    def model(self) -> Mapping[str, Any]:
        """The config of the model; empty where there is none."""
        return self.config.get("model") or {}

    @property
    def detector(self) -> Mapping[str, Any]:
        """The config of the detector, wherever it stands."""
        return self.model.get("detector") or self.model

    @property
    def method(self) -> Mapping[str, Any]:
        """The config of the method; empty for supervised training."""
        return self.model.get("method") or {}

    def option(self, name: str) -> Any:
        """An option of the method, by default as its class has it; None where it has no such option."""
        if name in self.method:
            return self.method[name]
        kind = METHODS.get(self.method["type"]) if "type" in self.method else None
        parameter = inspect.signature(kind).parameters.get(name) if kind is not None else None
        return None if parameter is None or parameter.default is parameter.empty else parameter.default

    @property
    def ramp(self) -> Ramp | None:
        """λ_u of the method; None for supervised training, or a value that building the method refuses."""
        given = self.option("unsup_weight")
        try:
            return None if given is None else Ramp.of(dict(given) if isinstance(given, dict) else given)
        except (TypeError, ValueError):
            return None

    @property
    def box_heads(self) -> list[Mapping[str, Any]]:
        """The configs of the heads that tell classes apart."""
        head = (self.detector.get("roi_head") or self.detector).get("bbox_head") or []
        return [each for each in (head if isinstance(head, (list, tuple)) else [head]) if each]

    @property
    def schedulers(self) -> list[Mapping[str, Any]]:
        """The schedules of the learning rate."""
        given = self.config.get("param_scheduler") or []
        return [given] if isinstance(given, Mapping) else list(given)


def walk(node: Any, place: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, dict) of every dict below a node of a config: `model.detector.backbone`, ..."""
    if isinstance(node, Mapping):
        yield place, node
        for name, value in node.items():
            if place or name in KNOWN_NAMES:  # helper variables are used up
                yield from walk(value, f"{place}.{name}" if place else str(name))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from walk(value, f"{place}.{index}")
