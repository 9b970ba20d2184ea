"""Training goes on where an image can't be read: another one is drawn, and the item says which and why."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import cv2
import numpy as np
from torch.utils.data import Dataset

from ssod.data.decode import BadImage, image_size
from ssod.data.generators import set_generators, state_of_generators
from ssod.errors import BadImageError, UserError
from ssod.registry import DATASETS

TRIES = 64  # other images that are tried in the place of one
_KEY = "replaced"  # in the metainfo of an item's data sample


class Replaced(NamedTuple):
    """A file in whose place another was drawn: the number of its dataset · where it lies · what is wrong."""

    source: int
    path: str
    reason: str


def too_narrow(error: cv2.error, path: str) -> BadImageError:
    """What OpenCV means where it was to resize an image to nothing on one side; raises any other error."""
    if error.func != "resize" or error.code != cv2.Error.StsAssert:
        raise error
    width, height = image_size(path)
    reason = f"too narrow for its scale, {width} x {height} px"
    return BadImageError(f"image {path} is {reason}: leave it out", path, reason)


@DATASETS.register_module()
class ReplaceBadImages(Dataset[Any]):
    """A dataset whose unreadable images are replaced by others of the same source.

    dataset: a config, whose images are replaced when their pipeline raises BadImageError. Which ones come
    instead is a function of the index alone: the same whatever the number of workers, and after a resume.
    They are of the same orientation where there are such. A file that was found bad is not read again by the
    same loader worker.

    The item that came instead carries the files that could not be read (`notes_of`), so the process that
    trains counts exactly what it trained on. Raises UserError where `TRIES` others can't be read, either.
    """

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        self.dataset: Any = DATASETS.build(dict(dataset))
        self._known: dict[int, BadImage] = {}

    @property
    def datasets(self) -> list[Any]:
        """The sources: the children of a ConcatDataset, or the dataset itself."""
        return list(getattr(self.dataset, "datasets", [self.dataset]))

    @property
    def cumulative_sizes(self) -> list[int]:
        """Where each source ends."""
        return list(accumulate(len(each) for each in self.datasets))

    @property
    def metainfo(self) -> Any:
        """The dataset's own."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Loads what the dataset left for later."""
        if hasattr(self.dataset, "full_init"):
            self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def get_data_info(self, index: int) -> Any:
        """The dataset's own record."""
        return self.dataset.get_data_info(index)

    def __getitem__(self, index: int) -> Any:
        begin = state_of_generators()
        item = self._read(index)
        if not isinstance(item, BadImage):
            return item
        source, first, size = self._source_of(index)
        bad = [item]
        for other in self._others(index, first, size):
            seen = other in self._known
            set_generators(begin)  # what a failed reading drew depends on what this worker read before
            item = self._read(other)
            if not isinstance(item, BadImage):
                return _with_notes(item, [Replaced(source, *each) for each in bad])
            bad += [] if seen else [item]
        raise UserError(
            f"image {bad[0].path} can't be read ({bad[0].reason}), nor can {min(TRIES, size - 1)} others of "
            f"dataset {source}, such as {bad[-1].path} ({bad[-1].reason}): check the folder they lie in"
        )

    def _read(self, index: int) -> Any:
        """The item, or what is wrong with its image."""
        if index not in self._known:
            try:
                return self.dataset[index]
            except cv2.error as error:  # at the scale that was drawn, perhaps not at the next
                narrow = too_narrow(error, self.dataset.get_data_info(index)["img_path"])
                return BadImage(narrow.path, narrow.reason)
            except BadImageError as error:
                self._known[index] = BadImage(error.path, error.reason)
        return self._known[index]

    def _source_of(self, index: int) -> tuple[int, int, int]:
        """The number of an image's dataset, that dataset's first index and its length."""
        ends = self.cumulative_sizes
        source = bisect_right(ends, index)
        first = ends[source - 1] if source else 0
        return source, first, ends[source] - first

    def _others(self, index: int, first: int, size: int) -> Iterator[int]:
        """Indices of the same source, those of the same orientation first."""
        generator = np.random.default_rng(index)
        drawn = (first + generator.choice(size, min(size, TRIES + 1), replace=False)).tolist()
        drawn = [other for other in drawn if other != index][:TRIES]
        wanted = self._is_landscape(index)
        alike = [other for other in drawn if self._is_landscape(other) == wanted]
        yield from alike
        yield from (other for other in drawn if other not in alike)

    def _is_landscape(self, index: int) -> bool | None:
        """Whether w >= h; None where the dataset doesn't know."""
        info = self.dataset.get_data_info(index)
        width, height = info.get("width"), info.get("height")
        return width >= height if width and height else None


def _with_notes(item: Any, notes: list[Replaced]) -> Any:
    """The item with the notes in the metainfo of its first data sample."""
    views = item.values() if isinstance(item, dict) and "data_samples" not in item else [item]
    samples = [view["data_samples"] for view in views if isinstance(view, dict) and "data_samples" in view]
    if not samples or not hasattr(samples[0], "set_metainfo"):
        raise UserError(
            f"image {notes[0].path} can't be read ({notes[0].reason}), and items of this pipeline have no "
            "data sample that could say so: mend the file, or end the pipeline with PackView"
        )
    samples[0].set_metainfo({_KEY: [tuple(note) for note in notes]})
    return item


def notes_of(batch: Any) -> list[list[Replaced]]:
    """For each image of a batch that came in another one's place, the files that could not be read."""
    views = batch.values() if isinstance(batch, dict) and "data_samples" not in batch else [batch]
    found = []
    for view in views:
        samples = view.get("data_samples", ()) if isinstance(view, dict) else ()
        for sample in samples if isinstance(samples, (list, tuple)) else ():
            notes = sample.metainfo.get(_KEY) if hasattr(sample, "metainfo") else None
            if notes:
                found.append([Replaced(*note) for note in notes])
    return found
