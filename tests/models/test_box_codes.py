"""Codes of boxes against mmdet's coders, to the bit, and there and back again."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ssod.models.box_codes import decode, encode

CODERS: dict[str, dict[str, Any]] = {
    "the RPN's": dict(),
    "the RoI head's": dict(target_stds=(0.1, 0.1, 0.2, 0.2)),
    "with means": dict(target_means=(0.1, 0.1, -0.2, -0.2), target_stds=(0.5, 0.5, 1.0, 1.0)),
    "x unlike y": dict(target_stds=(0.1, 0.2, 0.2, 0.2)),
    "YOLOF's": dict(add_ctr_clamp=True, ctr_clamp=8),
}


def boxes(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(2, 50, 2, generator=generator) * 90
    return torch.cat([low, low + 0.5 + torch.rand(2, 50, 2, generator=generator) * 60], dim=-1)


@pytest.mark.parametrize("options", CODERS.values(), ids=CODERS)
def test_they_are_mmdets(registered: None, options: dict[str, Any]) -> None:
    from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder

    coder, first, second = DeltaXYWHBBoxCoder(**options), boxes(0), boxes(1)
    codes = encode(coder, first, second)
    assert codes.equal(coder.encode(first.view(-1, 4), second.view(-1, 4)).view(2, 50, 4))
    wild = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(2)) * 20  # beyond the clips
    for each in (codes, wild):
        assert decode(coder, first, each).equal(
            coder.decode(first.view(-1, 4), each.view(-1, 4)).view(2, 50, 4)
        )
    if "add_ctr_clamp" not in options:
        torch.testing.assert_close(decode(coder, first, codes), second, rtol=1e-4, atol=1e-3)


def test_another_coder_is_asked(registered: None) -> None:
    from mmdet.models.task_modules.coders import TBLRBBoxCoder

    coder, first, second = TBLRBBoxCoder(normalizer=4.0), boxes(0), boxes(0) + 1
    codes = encode(coder, first, second)
    assert codes.equal(coder.encode(first.view(-1, 4), second.view(-1, 4)).view_as(codes))
    assert decode(coder, first, codes).equal(
        coder.decode(first.view(-1, 4), codes.view(-1, 4)).view_as(codes)
    )
