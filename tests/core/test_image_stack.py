"""ImageStack against the list of images that it stands for."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from ssod.core.image_stack import ImageStack, common_size

SIZES = [(5, 3), (2, 9), (7, 1)]


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]


@pytest.mark.parametrize("in_worker", [False, True])
@pytest.mark.parametrize("size", [None, (8, 12)])
def test_it_is_the_list_of_images_with_zeros_around(size: Any, in_worker: bool) -> None:
    stack = ImageStack.of(images(), size, in_worker)
    assert tuple(stack.pixels.shape) == (3, 3, *(size or common_size(SIZES)))
    assert stack.pixels.is_contiguous() and stack.pixels.is_shared() == in_worker
    assert len(stack) == 3 and stack.sizes == tuple(SIZES)
    for index, (found, expected) in enumerate(zip(stack, images(), strict=True)):
        assert torch.equal(found, expected) and torch.equal(stack[index], expected)
        assert stack.pixels[index].sum() == expected.sum()  # all else is zero
        assert found.untyped_storage().data_ptr() == stack.pixels.untyped_storage().data_ptr()


def test_an_image_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        ImageStack.of(images())[3]


def test_a_copy_keeps_the_sizes() -> None:
    stack = ImageStack.of(images())
    assert stack.to("meta").pixels.device.type == "meta" and stack.to("meta").sizes == stack.sizes


class Pinned(Tensor):
    """Bytes that say they are pinned, which needs a GPU otherwise."""

    def pin_memory(self, *_: Any) -> Tensor:  # type: ignore[override]
        return torch.full_like(torch.as_tensor(self), 7)


def test_torchs_loader_pins_the_stack_as_one() -> None:
    from torch.utils.data._utils.pin_memory import pin_memory

    stack = ImageStack.of(images())
    stack = ImageStack(stack.pixels.as_subclass(Pinned), stack.sizes)
    found = pin_memory({"weak": {"inputs": stack, "data_samples": [1]}})["weak"]["inputs"]
    assert found.sizes == stack.sizes and bool((found.pixels == 7).all())


def _collate(drawn: list[int]) -> dict[str, Any]:
    stack = ImageStack.of(images(), in_worker=get_worker_info() is not None)
    return {"stack": stack, "address": stack.pixels.untyped_storage().is_shared()}


def test_a_worker_hands_it_over_unchanged() -> None:
    [batch] = DataLoader([0, 1], batch_size=2, num_workers=1, collate_fn=_collate)  # type: ignore[arg-type]
    assert batch["address"] and batch["stack"].sizes == tuple(SIZES)
    assert torch.equal(batch["stack"].pixels, ImageStack.of(images()).pixels)


def test_images_that_are_not_bytes_keep_their_numbers() -> None:
    """mmdet's photometric distortion leaves numbers below 0 and above 255."""
    images = [torch.tensor([-7.5, 300.2, 12.9]).view(3, 1, 1), torch.zeros(3, 2, 2, dtype=torch.uint8)]
    stack = ImageStack.of(images)
    assert stack.pixels.dtype == torch.float32
    assert stack[0].equal(images[0])
    assert stack[1].equal(images[1].float())
