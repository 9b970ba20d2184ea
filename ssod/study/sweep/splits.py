"""The `percent` and `fold` of a sweep: which files hold the split, and drawing those that can be drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ssod.data.own_splits import Amount, parse_percent
from ssod.data.splits import SplitOptions, split_file
from ssod.errors import UserError

FOLDER = "splits"


@dataclass(frozen=True)
class Split:
    """A split that a run needs and the sweep draws: the source's annotation file, and what is drawn of it."""

    annotations: Path
    out: Path
    options: SplitOptions

    @property
    def name(self) -> str:
        """The files' name without what tells labeled and unlabeled apart."""
        return f"{self.annotations.stem}.{self.options.folds[0]}@{self.options.amounts[0]}"

    def draw(self) -> None:
        """Writes the files, the same bytes again where they are; UserError where others have their names."""
        split_file(self.annotations, self.out, self.options)


def parts_of(config: Config) -> list[Any]:
    """The configs of the training datasets: the labeled one, then the unlabeled one if there is one."""
    dataset: Any = config.train_dataloader.dataset
    parts = dataset.get("datasets") or [dataset]
    return [part.dataset if part.get("type") == "PseudoLabeled" else part for part in parts]


def set_split(
    config: Config, splits: Mapping[str, Any], percent: Any, fold: int, work_dir: Path
) -> Split | None:
    """Names the split's files in the config; the split, where it has to be drawn.

    splits: `files`, a path without its end such as `semi_anns/instances_train2017.{fold}@{percent}`, for
    files that are there; or `protocol` ("own" by default), `annotations` (by default the labeled dataset's
    own file), `seed` and `stratified`, for a split that is drawn into the sweep's work dir.
    """
    labeled, *rest = parts_of(config)
    amount = Amount(percent=parse_percent(str(percent)))
    if "files" in splits:
        base, split = _filled(splits["files"], fold, amount), None
    else:
        file = splits.get("annotations") or labeled.get("ann_file")
        if not file:
            raise UserError(
                "splits: the labeled dataset has no ann_file to draw from: set splits.annotations"
            )
        source = Path(labeled.get("data_root") or "", file)
        if not source.is_file():
            raise UserError(
                f"splits: there is no {source} to draw from: set splits.annotations, or SSOD_DATA_ROOT"
            )
        options = SplitOptions(
            splits.get("protocol", "own"),
            percents=[str(percent)],
            folds=[fold],
            seed=splits.get("seed", 0),
            stratified=splits.get("stratified", False),
        )
        split = Split(source.resolve(), (work_dir / FOLDER).resolve(), options)
        base = str(split.out / split.name)
        if config.get("hidden_truth"):
            config.hidden_truth = str(split.annotations)  # of whatever the draw leaves unlabeled
    for part, end in zip((labeled, *rest), (".json", "-unlabeled.json"), strict=False):
        part.ann_file = base + end
        for name in ("only_ids", "except_ids"):
            part.pop(name, None)
    return split


def _filled(files: str, fold: int, amount: Amount) -> str:
    """The path of a split's files."""
    try:
        return files.format(fold=fold, percent=amount)
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise UserError(
            f"splits.files {files!r} can't be filled in ({error}): it may name {{fold}} and {{percent}}"
        ) from None
