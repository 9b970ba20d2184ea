"""How much of a batch is padding: batches as the sampler draws them, at sizes as the pipelines draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mmcv

from ssod.core.image_stack import common_size
from ssod.data.draws import seeded
from ssod.data.reduced import drawing
from ssod.data.sampler import LabeledUnlabeledSampler

Size = tuple[int, int]


class _Sizes:
    """A dataset of which only widths and heights are known."""

    def __init__(self, sizes: Sequence[Size]) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def get_data_info(self, index: int) -> dict[str, int]:
        """What the sampler asks for."""
        width, height = self.sizes[index]
        return {"width": width, "height": height}


class _Sources:
    """Datasets one behind the other, as in a ConcatDataset."""

    def __init__(self, datasets: Sequence[_Sizes]) -> None:
        self.datasets = datasets

    def __len__(self) -> int:
        return sum(map(len, self.datasets))


def padding_shares(
    sources: Sequence[Sequence[Size]],
    counts: Sequence[int],
    resize: dict[str, Any],
    group_by_orientation: bool = True,
    same_scale: bool = False,
    batches: int = 1000,
    divisor: int = 32,
    seed: int = 0,
) -> dict[str, float]:
    """The share of pixels that are padding: `student` (labeled and strong views), and `weak`, if any.

    sources: widths and heights of the labeled images and of the unlabeled ones, the latter shown in two views
    · counts: of each in a batch · resize: the config of the resize with which all views begin · same_scale:
    as in `ssod.data.pipelines.strong`.
    """
    dataset = _Sources([_Sizes(each) for each in sources])
    sampler = LabeledUnlabeledSampler(
        dataset, counts, group_by_orientation=group_by_orientation, seed=seed, rank=0, world_size=1
    )
    stream, draw = iter(sampler), drawing(resize)
    sizes = [size for source in sources for size in source]
    seen: dict[str, list[int]] = {"student": [0, 0], "weak": [0, 0]}  # pixels of images, and of stacks
    with seeded((seed,)):
        for _ in range(batches):
            chosen = [sizes[next(stream)] for _ in range(sum(counts))]
            shown = {"student": chosen, "weak": chosen[counts[0] :]}
            for name, images in shown.items():
                if not images:  # a supervised run has no weak views
                    continue
                scales = [draw({})["scale"] for _ in images]
                views = [
                    mmcv.rescale_size(size, scales[0] if same_scale else scale)
                    for size, scale in zip(images, scales, strict=True)
                ]
                width, height = (-(-side // divisor) * divisor for side in common_size(views))
                seen[name][0] += sum(w * h for w, h in views)
                seen[name][1] += len(views) * width * height
    return {name: 1 - images / stacks for name, (images, stacks) in seen.items() if stacks}
