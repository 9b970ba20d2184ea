"""The unlabeled images that telemetry looks at: chosen once, spread over the data, in views that stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ssod.data.draws import Draw
from ssod.errors import BadImageError

SEED = 0  # of the views: the same in every run, whatever its own seed


class Sample:
    """Batches of the same few unlabeled images, in the same views whenever they are asked for.

    Views are drawn anew each time, from generators seeded by the image's place: kept, they would take 10 MB
    an image at COCO's size. dataset: that of the training loader, the labeled images first · collate: its
    own.
    """

    def __init__(self, dataset: Any, collate: Any, num_images: int, batch_size: int = 8) -> None:
        self.dataset, self.collate, self.batch_size = dataset, collate, batch_size
        self.indices = spread_over(dataset, num_images)

    def batches(self, num_images: int | None = None) -> Iterator[dict[str, Any]]:
        """Collated batches, each with one labeled image in front, as the preprocessor wants it.

        An image that can't be read is left out; num_images: of the first so many, spread as all are.
        """
        chosen = self.indices if num_images is None else _thinned(self.indices, num_images)
        first = self._item(0)
        for begin in range(0, len(chosen), self.batch_size):
            items = [self._item(index) for index in chosen[begin : begin + self.batch_size]]
            there = [item for item in items if item is not None]
            if there and first is not None:
                yield dict(self.collate([first, *there]))

    def _item(self, index: int) -> Any:
        try:
            return self.dataset[Draw(index, (SEED, 0, 0, index))]
        except BadImageError:
            return None


def spread_over(dataset: Any, num_images: int) -> list[int]:
    """The indices of up to `num_images` unlabeled images at equal distances; none of a supervised run."""
    ends = getattr(dataset, "cumulative_sizes", None)
    if not ends or len(ends) < 2:
        return []
    return _thinned(range(ends[0], ends[-1]), num_images)


def _thinned(indices: Any, number: int) -> list[int]:
    """At most so many of the indices, at equal distances."""
    number = min(number, len(indices))
    places = (np.arange(number) + 0.5) * len(indices) / max(number, 1)
    return [int(indices[int(place)]) for place in places]
