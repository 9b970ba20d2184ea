"""The weighted sum against closed forms; what a weight of 0 hides has no value and no gradient."""

import math

import pytest
import torch

from ssod.core.losses import consistency_mse, weighted_sum

WEIGHTS = torch.tensor([[1.0, 0.5, 0.0], [0.25, 0.0, 2.0]])


def test_weighted_sum() -> None:
    values = torch.tensor([[1.0, 2.0, 100.0], [4.0, 100.0, -3.0]])
    assert weighted_sum(values, WEIGHTS, 4.0) == (1 + 1 + 1 - 6) / 4
    assert weighted_sum(values, WEIGHTS, torch.tensor(2.0)) == (1 + 1 + 1 - 6) / 2
    assert weighted_sum(values, WEIGHTS * 0, 4.0) == 0


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan], ids=str)
def test_padding_may_hold_anything(bad: float) -> None:
    """What stands in a slot of weight 0 changes neither the value nor the gradient: weights / normaliser."""
    values = torch.full((2, 3), 7.0)
    values[WEIGHTS == 0] = bad
    values.requires_grad_()
    total = weighted_sum(values, WEIGHTS, 3.0)
    assert total.item() == pytest.approx(7 * WEIGHTS.sum().item() / 3)
    (gradient,) = torch.autograd.grad(total, values)
    torch.testing.assert_close(gradient, WEIGHTS / 3)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(kind: torch.dtype) -> None:
    """2000 values of 100: the sum is beyond float16, and its last digits beyond bfloat16."""
    assert weighted_sum(torch.full((2000,), 100.0, dtype=kind), torch.ones(2000), 1.0) == 200_000


def test_consistency_mse() -> None:
    """Two of three slots count, each a mean over its two values; padding may hold anything."""
    first = torch.tensor([[[1.0, 2.0], [0.0, 4.0], [math.nan, math.inf]]], requires_grad=True)
    second = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]])
    valid = torch.tensor([[True, True, False]])
    loss = consistency_mse(first, second, valid)
    assert loss.item() == ((1 + 4) / 2 + (9 + 0) / 2) / 2
    (gradient,) = torch.autograd.grad(loss, first)
    torch.testing.assert_close(gradient[0, :2], (first - second)[0, :2] / 2)
    unit = torch.tensor([2.0, 4.0]).expand_as(second)
    assert consistency_mse(first, second, valid, unit).item() == ((1 / 4 + 4 / 16) / 2 + 9 / 4 / 2) / 2
    assert consistency_mse(first, second, valid & False).item() == 0
