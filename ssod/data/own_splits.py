"""Labeled, unlabeled and held-out parts of one's own data: by percent, count or images per class."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ssod.data.split_protocols import Parts, Positions, split_by
from ssod.errors import UserError

MIN_PERCENT, MAX_PERCENT = Decimal("0.01"), Decimal(100)
Flags = npt.NDArray[np.bool_]


def parse_percent(text: str, option: str = "--percent", lowest: Decimal = MIN_PERCENT) -> Decimal:
    """The number as it was typed, without trailing zeros; UserError outside of `lowest` to 100."""
    try:
        percent = Decimal(text)
    except InvalidOperation:
        percent = Decimal("nan")
    if not percent.is_finite() or not lowest <= percent <= MAX_PERCENT:
        raise UserError(f"{option} {text}: give a number from {lowest} to {MAX_PERCENT}")
    return Decimal(f"{percent.normalize():f}")


@dataclass(frozen=True)
class Amount:
    """How much is labeled: one of percent, count (images) and per_class (images that show each class)."""

    percent: Decimal | None = None
    count: int | None = None
    per_class: int | None = None

    def __str__(self) -> str:
        """As it stands in file names: `10`, `0.5`, `200images`, `5perclass`."""
        if self.percent is not None:
            return str(self.percent)
        return f"{self.count}images" if self.count is not None else f"{self.per_class}perclass"


def num_of(percent: Decimal, total: int) -> int:
    """The percentage of a total in exact arithmetic, halves rounded up, and at least 1."""
    return max(1, int(Fraction(percent) * total / 100 + Fraction(1, 2)))


class Incidence:
    """Which classes the images show: N images, C classes, crowds left out."""

    def __init__(self, images: Positions, classes: Positions, num_images: int, names: list[Any]) -> None:
        """images, classes (A,): the image and the class of each annotation, as positions."""
        self.names = names
        self.num_images = num_images
        pairs = np.unique(images * max(len(names), 1) + classes)
        self.images, self.classes = np.divmod(pairs, max(len(names), 1))

    def shown(self) -> npt.NDArray[np.int64]:
        """How many images show each class, (C,)."""
        return np.bincount(self.classes, minlength=len(self.names))

    def members(self, order: Positions) -> tuple[list[list[int]], dict[int, list[int]]]:
        """The images of `order` that show each class, in this order, and the classes of each image.

        A last class, C, has the images that show none.
        """
        num_classes = len(self.names)
        members: list[list[int]] = [[] for _ in range(num_classes + 1)]
        starts = np.searchsorted(self.images, np.arange(self.num_images + 1))
        classes_of: dict[int, list[int]] = {}
        for image in order.tolist():
            found = self.classes[starts[image] : starts[image + 1]].tolist() or [num_classes]
            classes_of[image] = found
            for each in found:
                members[each].append(image)
        return members, classes_of


def held_out_part(incidence: Incidence, percent: Decimal, seed: int, stratified: bool) -> Positions:
    """The images that are set aside first, ascending: none at 0 %, else rounded as `num_of` does.

    They depend on the seed and not on a fold, so all folds and percentages are compared on the same images.
    Raises UserError where no image would be left.
    """
    _check_seeds(seed)
    if not percent:
        return np.zeros(0, dtype=np.int64)
    total = incidence.num_images
    number = num_of(percent, total)
    if number >= total:
        raise UserError(f"--held-out {percent} leaves none of {total} images: lower it")
    return _take(incidence, _generator(seed), np.arange(total), number, stratified)


def own_split(
    incidence: Incidence,
    amount: Amount,
    fold: int,
    seed: int = 0,
    held_out: Positions | None = None,
    stratified: bool = False,
) -> Parts:
    """The parts of a draw without replacement; a fold is a draw of its own, equal for equal arguments.

    The percentage is of the images that are not held out, in exact arithmetic, halves rounded up, at least
    one image. Without `stratified`, smaller percentages and counts of a fold are contained in larger ones.
    `stratified` gives both parts the file's share of each class, as far as images with several classes
    allow. `per_class` adds images, for the rarest class first, until as many images show each class; classes
    without any image don't count.

    Raises UserError for amounts that the images can't give.
    """
    _check_seeds(seed, fold)
    total = incidence.num_images
    pool = np.arange(total) if held_out is None else np.setdiff1d(np.arange(total), held_out)
    generator = _generator(seed, fold)
    if amount.per_class is not None:
        labeled = _per_class(incidence, generator.permutation(pool), amount.per_class)
    else:
        number = num_of(amount.percent, len(pool)) if amount.percent is not None else amount.count or 0
        if not 1 <= number <= len(pool):
            raise UserError(f"--count {number}: give 1 to {len(pool)}, the number of images to choose from")
        labeled = _take(incidence, generator, pool, number, stratified)
    return split_by(labeled, total, [seed, fold], held_out)


def _check_seeds(*numbers: int) -> None:
    if not all(0 <= number < 2**32 for number in numbers):
        raise UserError(f"--seed and --fold {numbers}: give numbers from 0 to 2^32 - 1")


def _generator(*seeds: int) -> np.random.RandomState:
    """A generator of old, because NumPy promises that its streams never change."""
    return np.random.RandomState(list(seeds))


def _take(
    incidence: Incidence, generator: np.random.RandomState, pool: Positions, number: int, stratified: bool
) -> Positions:
    """`number` images of the pool, ascending."""
    order: Positions = generator.permutation(pool)
    if not stratified:
        return np.sort(order[:number])
    return np.array(_stratified(incidence, order, number, generator.random_sample()), dtype=np.int64)


def _stratified(incidence: Incidence, order: Positions, number: int, start: float) -> list[int]:
    """`number` images of `order` with its shares of classes, ascending: systematic sampling by class.

    Classes are dealt out from the rarest to the most common; with each image a running total, which begins
    at `start` in [0, 1), grows by the share of its class that is still to be labeled, and an image is
    labeled when the total passes a whole number. The total runs on from class to class, so many rare
    classes get their share together, though none of them has a whole image of it.
    """
    members, classes_of = incidence.members(order)
    left = [len(each) for each in members]
    needs = [number * count / len(order) for count in left]
    room, total, dealt, taken = number, start, set[int](), list[int]()
    while any(left):
        rarest = min((count, each) for each, count in enumerate(left) if count)[1]
        share = min(max(needs[rarest] / left[rarest], 0.0), 1.0)
        for image in members[rarest]:
            if image in dealt:
                continue
            total += share
            # The last images give or take what the classes' needs do not add up to.
            if room and (total >= 1.0 or room >= len(order) - len(dealt)):
                total -= 1.0
                room -= 1
                taken.append(image)
                for each in classes_of[image]:
                    needs[each] -= 1.0
            dealt.add(image)
            for each in classes_of[image]:
                left[each] -= 1
    return sorted(taken)


def _per_class(incidence: Incidence, order: Positions, number: int) -> Positions:
    """Images of `order`, ascending, of which at least `number` show each class that the file shows."""
    if number < 1:
        raise UserError(f"--per-class {number}: at least 1 image is needed")
    members, classes_of = incidence.members(order)
    shown = incidence.shown()
    for each, name in enumerate(incidence.names):
        if shown[each] and len(members[each]) < number:
            raise UserError(
                f"--per-class {number}: only {len(members[each])} of the images to choose from show "
                f"class {name!r}: lower the number, or use --percent with --stratified"
            )
    if not shown.any():
        raise UserError(f"--per-class {number}: the file has no box: use --percent or --count")
    have = [0] * (len(incidence.names) + 1)
    chosen: set[int] = set()
    for each in sorted(np.flatnonzero(shown).tolist(), key=lambda c: (len(members[c]), c)):
        for image in members[each]:
            if have[each] >= number:
                break
            if image not in chosen:
                chosen.add(image)
                for shows in classes_of[image]:
                    have[shows] += 1
    return np.array(sorted(chosen), dtype=np.int64)
