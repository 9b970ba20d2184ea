"""Which data runs were trained and tested on: those of one section may stand in one table."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ssod.study.results import Run

# What tools/split_data.py puts behind a file's name: .1@10, .1@0.5, .1@200images, .1@5perclass.
_DRAW = re.compile(r"\.\d+@(?:(?P<images>\d+)images|(?P<per_class>\d+)perclass|[\d.]+)$")
# What tells sections with one title apart: {a field: what stands before its value}.
_MORE = {"protocol": "protocol", "labeled_file": "labeled images of", "tested_file": "tested on"}


@dataclass(frozen=True)
class Section:
    """Data, share and protocol; how many images are labeled: `percent`, else `per_class`, else `num_labeled`.

    Folds of so many images per class differ by a few images, so their number says nothing there.
    """

    dataset: str | None
    labeled_file: str | None
    tested_file: str | None
    protocol: str
    percent: float | None
    num_labeled: int | None
    per_class: int | None = None

    @property
    def title(self) -> str:
        """Such as "coco, 10 % labeled, protocol stac"; `titles` makes those of a report unique."""
        if self.percent is not None:
            share = f"{self.percent:g} % labeled, protocol {self.protocol}"
        elif self.per_class is not None:
            share = f"{self.per_class} labeled images per class"
        else:
            share = f"{self.num_labeled} labeled images"
        return f"{self.dataset or 'unknown data'}, {share}"

    @property
    def facts(self) -> list[str]:
        """What the title leaves out, for the line below it."""
        drawn = "a file" if self.protocol == "file" else f"split protocol {self.protocol}"
        labeled = f"labeled images from {drawn}{f' ({self.labeled_file})' if self.labeled_file else ''}"
        return [labeled, *([f"tested on {self.tested_file}"] if self.tested_file else [])]


@dataclass
class Row:
    """Runs to be averaged, of one section."""

    section: Section
    runs: list[Run]
    label: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> Run:
        """Any of them: what they share is read from it."""
        return self.runs[0]


def titles(sections: Sequence[Section]) -> list[str]:
    """A title for each section; what would have one title says in which file or protocol it differs."""
    found = []
    for section in sections:
        alike = [each for each in sections if each.title == section.title]
        differ = [name for name in _MORE if len({getattr(each, name) for each in alike}) > 1]
        more = [f"{_MORE[name]} {getattr(section, name) or 'an unknown file'}" for name in differ]
        found.append(", ".join([section.title, *more]))
    return found


def section_of(run: Run) -> Section:
    """The section of a run, from its result.json and its config."""
    config = run.config or {}
    labeled = _labeled(config)
    percent = run.split.get("percent")
    root = labeled.get("data_root")
    num_labeled, per_class = (None, None) if percent is not None else _amount(run, _stem(labeled))
    return Section(
        dataset=PurePath(str(root)).name if root else None,
        labeled_file=_DRAW.sub("", _stem(labeled)) or None,
        tested_file=_stem(_part(config, "val_dataloader", "dataset")) or None,
        protocol=str(run.split.get("protocol")),
        percent=percent,
        num_labeled=num_labeled,
        per_class=per_class,
    )


def _amount(run: Run, stem: str) -> tuple[int | None, int | None]:
    """How many images are labeled, in all or per class.

    The file's name says it where the run found a manifest beside the file, and so has a fold; the number of
    images that were used may be less by those that `filter_cfg` drops, in one fold more than in another.
    """
    drawn = _DRAW.search(stem) if run.split.get("fold") is not None else None
    if drawn and drawn["per_class"]:
        return None, int(drawn["per_class"])
    return int(drawn["images"]) if drawn and drawn["images"] else run.split.get("num_labeled"), None


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
