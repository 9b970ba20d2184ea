"""ImageStack: images of several sizes in one block of bytes, which moves to a device in one copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageStack:
    """N images, each at the top left of its place, with zeros beside and below.

    pixels (N, C, H, W), uint8 if all images are, else float32 · sizes: the images' heights and widths.
    Counts, indexes and iterates like a list of the images (C, h, w); these are looks at `pixels`, not copies.
    """

    pixels: Tensor
    sizes: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Tensor:
        height, width = self.sizes[index]
        return self.pixels[index, :, :height, :width]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def to(self, device: Any) -> ImageStack:
        """The stack on a device: a copy that nobody waits for, if it comes from pinned memory."""
        return replace(self, pixels=self.pixels.to(device, non_blocking=True))

    def pin_memory(self) -> ImageStack:
        """The stack in pinned memory; torch's DataLoader asks for it."""
        return replace(self, pixels=self.pixels.pin_memory())

    @staticmethod
    def of(
        images: Sequence[Tensor], size: tuple[int, int] | None = None, in_worker: bool = False
    ) -> ImageStack:
        """A stack of images (C, h, w), as large as the largest, or of a height and width given.

        in_worker: in shared memory from the start, so that a loader worker hands it over without a copy.
        """
        sizes = tuple((image.shape[1], image.shape[2]) for image in images)
        height, width = size or common_size(sizes)
        shape = (len(images), images[0].shape[0], height, width)
        if all(image.dtype == torch.uint8 for image in images):
            pixels = _shared(shape) if in_worker else torch.empty(shape, dtype=torch.uint8)
        else:  # mmdet's photometric distortion ends in numbers outside of bytes
            pixels = torch.empty(shape)
        for place, image, (h, w) in zip(pixels, images, sizes, strict=True):
            place[:, :h, :w] = image
            place[:, h:] = 0
            place[:, :h, w:] = 0
        return ImageStack(pixels, sizes)


def common_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The height and width that hold all of `sizes`."""
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _shared(shape: tuple[int, ...]) -> Tensor:
    """An empty uint8 tensor in shared memory; torch's own collation makes its batches so."""
    size = torch.Size(shape)
    storage = torch.UntypedStorage._new_shared(size.numel())  # type: ignore[no-untyped-call]
    block: Tensor = torch.empty(0, dtype=torch.uint8).set_(storage)
    return block.view(size)
