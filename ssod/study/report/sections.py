"""Which data a run was trained and tested on: runs of one section may stand in one table."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ssod.study.results import Run

_DRAW = re.compile(r"\.\d+@[\d.]+$")  # instances_train2017.1@10 -> instances_train2017


@dataclass(frozen=True)
class Section:
    """Data, share and protocol; `num_labeled` only where no percentage says how many images are labeled."""

    dataset: str | None
    labeled_file: str | None
    tested_file: str | None
    protocol: str
    percent: float | None
    num_labeled: int | None

    @property
    def title(self) -> str:
        """Such as "coco, 10 % labeled, protocol stac"."""
        if self.percent is not None:
            share = f"{self.percent:g} % labeled, protocol {self.protocol}"
        else:
            share = f"{self.num_labeled} labeled images"
        return f"{self.dataset or 'unknown data'}, {share}"

    @property
    def facts(self) -> list[str]:
        """What the title leaves out, for the line below it."""
        drawn = "a file" if self.protocol == "file" else f"split protocol {self.protocol}"
        labeled = f"labeled images from {drawn}{f' ({self.labeled_file})' if self.labeled_file else ''}"
        return [labeled, *([f"tested on {self.tested_file}"] if self.tested_file else [])]


def section_of(run: Run) -> Section:
    """The section of a run, from its result.json and its config."""
    config = run.config or {}
    labeled = _labeled(config)
    split = run.split
    percent = split.get("percent")
    root = labeled.get("data_root")
    return Section(
        dataset=PurePath(str(root)).name if root else None,
        labeled_file=_DRAW.sub("", _stem(labeled)) or None,
        tested_file=_stem(_part(config, "val_dataloader", "dataset")) or None,
        protocol=str(split.get("protocol")),
        percent=percent,
        num_labeled=split.get("num_labeled") if percent is None else None,
    )


def _labeled(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the labeled dataset: the first one, where there are several."""
    dataset = _part(config, "train_dataloader", "dataset")
    parts = dataset.get("datasets")
    first = parts[0] if isinstance(parts, (list, tuple)) and parts else dataset
    return first if isinstance(first, Mapping) else {}


def _part(config: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A part of a config; empty where there is none."""
    found: Any = config
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _stem(dataset: Mapping[str, Any]) -> str:
    """The name of a dataset's annotation file, without folder and .json."""
    name = os.path.basename(str(dataset.get("ann_file") or ""))
    return name.removesuffix(".json")
