"""Split files of a COCO file: `NAME.{fold}@{percent}.json`, `...-unlabeled.json`, and one manifest.json."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import ssod
from ssod.data.coco_text import CocoText, read_coco_text
from ssod.data.own_splits import Amount, Incidence, held_out_part, own_split, parse_percent
from ssod.data.split_manifest import claim, hash_of_ids
from ssod.data.split_protocols import (
    DRAWN,
    LISTED,
    NUM_IMAGES,
    Parts,
    Positions,
    drawn,
    listed,
    read_lists,
)
from ssod.errors import UserError, check_choice

PROTOCOLS = (*DRAWN, *LISTED, "own")


@dataclass(frozen=True)
class SplitOptions:
    """What is drawn: every amount of labeled images, for every fold.

    protocol: one of PROTOCOLS, see ssod/data/split_protocols.py · percents: as typed, 0.01 to 100 · counts,
    per_class: of labeled images, for `own` · folds: the published ones are 1 to 5, those of a list 0 to 9 ·
    seed: for `own`, and the offset of `soft_teacher` · held_out: percent, for `own` · stratified: by class,
    for `own` · list_path: the published list, for `unbiased_teacher` and `paddle`.
    """

    protocol: str
    percents: Sequence[str] = ()
    counts: Sequence[int] = ()
    per_class: Sequence[int] = ()
    folds: Sequence[int] = (1,)
    seed: int = 0
    held_out: str = "0"
    stratified: bool = False
    list_path: str | Path | None = None
    amounts: tuple[Amount, ...] = field(init=False)

    def __post_init__(self) -> None:
        amounts = [Amount(percent=parse_percent(each)) for each in self.percents]
        amounts += [Amount(count=each) for each in self.counts]
        amounts += [Amount(per_class=each) for each in self.per_class]
        object.__setattr__(self, "amounts", tuple(dict.fromkeys(amounts)))
        self._check()

    def _check(self) -> None:
        """Raises UserError for options that the protocol doesn't have or lacks."""
        check_choice("split", "protocol", self.protocol, PROTOCOLS)
        if not self.amounts or not self.folds:
            raise UserError("nothing to split: give --percent, and --fold with at least one number")
        own = {
            "--count": self.counts,
            "--per-class": self.per_class,
            "--held-out": Decimal(self.held_out_percent),
            "--stratified": self.stratified,
        }
        for option, given in own.items():
            if given and self.protocol != "own":
                raise UserError(f"{option} is for --protocol own: {self.protocol} is a published draw")
        if self.seed and self.protocol not in ("own", "soft_teacher"):
            raise UserError(f"--seed is for --protocol own and soft_teacher: {self.protocol} has none")
        if self.per_class and self.stratified:
            raise UserError("--per-class and --stratified are both given: choose one of them")
        if (self.protocol in LISTED) != (self.list_path is not None):
            needs = "needs --list FILE, the published list" if self.protocol in LISTED else "takes no --list"
            raise UserError(f"--protocol {self.protocol} {needs}")

    @property
    def held_out_percent(self) -> Decimal:
        """The share of images that are set aside, 0 to 100."""
        return parse_percent(self.held_out, "--held-out", Decimal(0))


def split_file(annotations: str | Path, out: str | Path, options: SplitOptions) -> dict[str, dict[str, Any]]:
    """The manifest's entries of the splits that were written to the folder `out`.

    An entry has protocol, percent (or count, or per_class), fold, seed, the source with its hash, and for
    each part its file, counts and the hash of its sorted image ids. The unlabeled file holds no annotation.
    Both files keep the source's order. The same call again writes the same bytes. Raises UserError for bad
    input and for a folder with other splits of the same names; nothing is half written.
    """
    lists, list_sha256 = ({}, None) if options.list_path is None else read_lists(options.list_path)
    coco = read_coco_text(annotations)
    if not coco.ids:
        raise UserError(f"annotation file {annotations} has no images: there is nothing to split")
    draw = _drawing(coco, options, lists)
    parts: dict[str, Parts] = {}
    entries: dict[str, dict[str, Any]] = {}
    for fold in dict.fromkeys(options.folds):
        for amount in options.amounts:
            key = f"{coco.path.stem}.{fold}@{amount}"
            parts[key] = draw(amount, fold)
            entries[key] = _entry(coco, options, amount, fold, parts[key], list_sha256)
    _write(coco, Path(out), entries, parts)
    return entries


def _drawing(
    coco: CocoText, options: SplitOptions, lists: dict[Decimal, dict[int, list[int]]]
) -> Callable[[Amount, int], Parts]:
    """Function: the parts of an amount and a fold."""
    protocol, num_images, with_box = options.protocol, len(coco.ids), coco.with_box()
    if protocol == "own":
        incidence = _incidence(coco)
        aside = held_out_part(incidence, options.held_out_percent, options.seed, options.stratified)
        return lambda amount, fold: own_split(
            incidence, amount, fold, options.seed, aside, options.stratified
        )

    def draw(amount: Amount, fold: int) -> Parts:
        assert amount.percent is not None  # the options allow other amounts for `own` alone
        if protocol in LISTED:
            return listed(protocol, coco.ids, with_box, lists, amount.percent, fold)
        return drawn(protocol, num_images, amount.percent, fold, options.seed)

    return draw


def _incidence(coco: CocoText) -> Incidence:
    """Which classes the images show."""
    names = [each.get("name", each["id"]) for each in coco.head["categories"]]
    shown = ~coco.crowd
    images, classes = coco.annotation_images[shown], coco.annotation_categories[shown]
    return Incidence(images, classes, len(coco.ids), names)


def _entry(
    coco: CocoText, options: SplitOptions, amount: Amount, fold: int, parts: Parts, list_sha256: str | None
) -> dict[str, Any]:
    """What the manifest says of a split."""
    name, percent = coco.path.stem, amount.percent
    key = f"{name}.{fold}@{amount}"
    number = None if percent is None else int(percent) if percent == int(percent) else float(percent)
    note = None
    if options.protocol in DRAWN and len(coco.ids) != NUM_IMAGES:
        note = f"drawn from {len(coco.ids)} images; the published splits are of {NUM_IMAGES}"
    held_out = _part(coco, f"{name}-held-out.json", parts.held_out, True) if len(parts.held_out) else None
    return {
        "protocol": options.protocol,
        "percent": number,
        "count": amount.count,
        "per_class": amount.per_class,
        "fold": fold,
        "seed": parts.seed,
        "stratified": options.stratified,
        "source": {"file": coco.path.name, "sha256": coco.sha256, "num_images": len(coco.ids)},
        "list_sha256": list_sha256,
        "labeled": _part(coco, f"{key}.json", parts.labeled, True),
        "unlabeled": _part(coco, f"{key}-unlabeled.json", parts.unlabeled, False),
        "held_out": held_out,
        "num_left_out": len(parts.left_out),
        "note": note,
        "tool_version": ssod.__version__,
    }


def _part(coco: CocoText, file: str, positions: Positions, annotations: bool) -> dict[str, Any]:
    return {
        "file": file,
        "num_images": len(positions),
        "num_annotations": len(coco.annotations_of(positions)) if annotations else 0,
        "ids_sha256": hash_of_ids(coco.ids_at(positions)),
    }


def _write(coco: CocoText, folder: Path, entries: dict[str, dict[str, Any]], parts: dict[str, Parts]) -> None:
    """Writes the manifest, then the files that it names."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder} is no folder that can be made ({error.strerror})") from None
    claim(folder, entries)
    written: set[str] = set()
    for key, entry in entries.items():
        positions = {
            "labeled": parts[key].labeled,
            "unlabeled": parts[key].unlabeled,
            "held_out": parts[key].held_out,
        }
        for part, chosen in positions.items():
            if entry[part] and entry[part]["file"] not in written:
                coco.write_part(folder / entry[part]["file"], chosen, annotations=part != "unlabeled")
                written.add(entry[part]["file"])
