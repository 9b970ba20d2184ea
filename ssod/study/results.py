"""One record per run, from the folders that runs leave: result.json, run.json, config.py, metrics.jsonl."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ssod.errors import UserError
from ssod.study.report import literal, reading

# The names of ssod/engine/records/result.py, which needs torch to be imported; a test holds them together.
RESULT = "result.json"
METRICS = "metrics.jsonl"
CONFIG = "config.py"
STAGE = "stage.json"
AXES = "run.json"
SCHEMA = 1
NETWORKS = ("teacher", "student")
# {the metric's name: its key in result.json}; the last three on demand.
METRIC_KEYS = {
    "AP": "bbox_mAP",
    "AP50": "bbox_mAP_50",
    "AP75": "bbox_mAP_75",
    "APs": "bbox_mAP_s",
    "APm": "bbox_mAP_m",
    "APl": "bbox_mAP_l",
}
Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run's folder, as far as a report reads it. `name` is its path below what all runs share."""

    folder: Path
    name: str
    result: Record
    place: Record = field(
        default_factory=dict
    )  # run.json: the sweep, its axes, whether it is there as a twin

    @property
    def is_done(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.result["status"] == "done")

    @property
    def is_supervised(self) -> bool:
        """Whether it trained on labeled images alone."""
        return bool(self.result["method"] == "supervised")

    @property
    def axes(self) -> Record:
        """What its sweep varied, without seed and fold; empty for a run of no sweep."""
        given: Record = self.place.get("axes") or {}
        return {key: value for key, value in given.items() if key not in ("seed", "fold")}

    @property
    def split(self) -> Record:
        """The split of result.json."""
        return dict(self.result["split"])

    @property
    def draw(self) -> tuple[Any, Any]:
        """What a run's chance is made of: the seed and the labeled images."""
        return self.result["seed"], self.split.get("ids_sha256")

    @property
    def batch(self) -> tuple[int, int]:
        """Labeled and unlabeled images of an iteration, of all processes together."""
        size = int(self.result.get("world_size") or 1)
        counts = [self.result["batch"].get(kind) for kind in ("labeled", "unlabeled")]
        return size * int(counts[0] or 0), size * int(counts[1] or 0)

    @property
    def total_iterations(self) -> int:
        """The iterations of all stages together; of a training without stages its own."""
        stages = [each.get("iterations") or 0 for each in self.result.get("stages") or ()]
        return int(sum(stages) or self.result["iterations"])

    @property
    def tested(self) -> tuple[Any, Any]:
        """The score threshold and the evaluator."""
        return self.result["test"].get("score_thr"), self.result["test"].get("evaluator")

    @property
    def networks(self) -> tuple[str, ...]:
        """Those with an AP."""
        return tuple(name for name in NETWORKS if self.value(name, "AP") is not None)

    def value(self, network: str, metric: str) -> float | None:
        """A metric in per cent; None where there is none, or no box of that size (-1 in COCO's)."""
        found = self.result["metrics"].get(network, {}).get(METRIC_KEYS[metric])
        return None if found is None or found < 0 else 100.0 * found

    @cached_property
    def config(self) -> Record | None:
        """The resolved config; None where the folder has none. UserError where it can't be read."""
        path = self.folder / CONFIG
        return literal.read_config(path) if path.is_file() else None

    @cached_property
    def options(self) -> literal.Options:
        """The resolved config, flattened."""
        return literal.flatten(self.config) if self.config else {}

    @cached_property
    def telling(self) -> dict[str, str]:
        """The options on which its result depends, but for seed and fold."""
        return literal.telling(self.options)

    @cached_property
    def training_folder(self) -> Path:
        """Where metrics.jsonl and pictures lie: the last stage's folder of a training in stages."""
        names = [each["name"] for each in self.result.get("stages") or ()]
        places = [self.folder, *(self.folder / name for name in reversed(names))]
        return next((each for each in places if (each / METRICS).is_file()), self.folder)

    @cached_property
    def records(self) -> list[Record]:
        """The lines of metrics.jsonl; a half-written one is left out."""
        return list(reading.read_lines(self.training_folder / METRICS))


def find_runs(folders: Sequence[str | Path]) -> list[Run]:
    """The runs in the folders and anywhere below them, each once, ordered by name.

    Raises UserError for a missing folder, a broken result.json or run.json, and for no run at all.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not os.path.isdir(folder):  # Path.is_dir raises OSError for a name that is too long
            raise UserError(f"{folder} is no folder: name the work dirs of runs, or folders that hold them")
        found |= dict.fromkeys(_run_folders(Path(folder)))
    if not found:
        raise UserError(
            f"no {RESULT} of a run in {' '.join(map(str, folders))} or below: name the work dirs of runs"
        )
    shared = Path(os.path.commonpath([path.parent for path in found]))
    runs = [_read_run(path, path.relative_to(shared).as_posix()) for path in found]
    return sorted(runs, key=lambda run: _natural(run.name))


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders with a result.json, links followed, but for the stages of a training in stages."""
    seen = set()
    for folder, inner, names in os.walk(root.resolve(), followlinks=True):
        path = Path(folder).resolve()
        if path in seen:  # a link led here a second time
            inner.clear()
            continue
        seen.add(path)
        if RESULT in names and not _is_stage(path):
            yield path
        inner.sort()


def _is_stage(folder: Path) -> bool:
    """Whether a folder is a stage of the run around it."""
    return (folder / STAGE).is_file() and (folder.parent / RESULT).is_file()


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts run_2 before run_10."""
    parts = "".join(c if c.isdecimal() else f"\0{c}\0" for c in name).split("\0")
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


def _read_run(folder: Path, name: str) -> Run:
    result = reading.read_json(folder / RESULT)
    if result.get("schema") != SCHEMA:
        raise UserError(
            f"{folder / RESULT} has schema {result.get('schema')!r}, this version reads {SCHEMA}: leave the "
            "run out, or use the version that wrote it"
        )
    reading.check(folder / RESULT, result, reading.RESULT)
    place = reading.read_json(folder / AXES) if (folder / AXES).is_file() else {}
    reading.check(folder / AXES, place, reading.PLACE)
    return Run(folder, name, result, place)
