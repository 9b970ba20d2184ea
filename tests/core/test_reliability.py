"""Spread, background reliability and softened weights against loops and the formulas of paper and code."""

from typing import Any

import pytest
import torch
from reference import boxes as reference
from torch import Tensor

from ssod.core.reliability import background_reliability, box_spread, soften_background


def copies(seed: int = 0) -> Tensor:
    """Jittered copies (2, 6, 5, 4); one box is wide, one thinner than a pixel."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, 1, 5, 2, generator=generator) * 50
    side = 20 + torch.rand(2, 1, 5, 2, generator=generator) * torch.tensor([200.0, 30.0])
    side[0, 0, 0] = torch.tensor([0.1, 0.2])
    return torch.cat([corner, corner + side], dim=-1) + torch.randn(2, 6, 5, 4, generator=generator)


@pytest.mark.parametrize("norm", ["code", "paper"])
def test_box_spread_box_by_box(norm: Any) -> None:
    refined = copies()
    spread, mean = box_spread(refined, norm)
    expected = [[reference.spread(refined[b, :, k].tolist(), norm) for k in range(5)] for b in range(2)]
    torch.testing.assert_close(spread, torch.tensor(expected))
    torch.testing.assert_close(mean, refined.sum(dim=1) / 6)


def test_box_spread_by_hand() -> None:
    """Two copies 2 px apart in x: std is √2, twice over 4 coordinates; the box is 40 x 10."""
    refined = torch.tensor([[[[0.0, 0, 40, 10]], [[2.0, 0, 42, 10]]]])
    torch.testing.assert_close(box_spread(refined, "code")[0], torch.tensor([[2 * 2**0.5 / 40 / 4]]))
    torch.testing.assert_close(box_spread(refined, "paper")[0], torch.tensor([[2 * 2**0.5 / 25 / 4]]))


def test_equal_copies_have_no_spread() -> None:
    assert box_spread(copies()[:, :1].expand(-1, 7, -1, -1))[0].abs().max() < 1e-5


def test_spread_has_no_unit() -> None:
    large = copies()[:, :, 1:] * 16  # without the thin box, whose side counts as 1 px
    torch.testing.assert_close(box_spread(large)[0], box_spread(large * 8)[0])


def test_background_reliability_is_the_last_score() -> None:
    scores = torch.tensor([[[0.7, 0.1, 0.2], [0.0, 0.0, 1.0]], [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0 + 1e-6]]])
    torch.testing.assert_close(background_reliability(scores), torch.tensor([[0.2, 1.0], [0.0, 1.0]]))
    assert background_reliability(scores).max() <= 1


USED = torch.tensor([[True, True, True, True], [True, True, False, False]])
POSITIVE = torch.tensor([[True, False, False, False], [True, True, False, False]])
RELIABILITY = torch.tensor([[0.9, 0.5, 0.25, 0.0], [0.9, 0.9, 0.9, float("nan")]]).nan_to_num(0.9)


def test_code_weights_are_mmdets() -> None:
    """weights: foreground 1, background r; Σ w l / max(Σ w, 1) over what is used (mmdet's code)."""
    weights, normaliser = soften_background(POSITIVE, USED, RELIABILITY, "code")
    assert weights.tolist() == [[1, 0.5, 0.25, 0], [1, 1, 0, 0]]
    losses = torch.rand(2, 4)
    label_weights = weights[USED]
    mean = (losses[USED] * label_weights).sum() / len(label_weights)  # their head's loss
    expected = mean * len(label_weights) / max(sum(label_weights), 1.0)
    torch.testing.assert_close((weights * losses).sum() / normaliser, expected)


def test_paper_weights_are_equation_4_and_5() -> None:
    """1 / N_fg for the 3 foreground boxes, r_j / Σ r_k for the background."""
    weights, normaliser = soften_background(POSITIVE, USED, RELIABILITY, "paper")
    expected = [[1 / 3, 0.5 / 0.75, 0.25 / 0.75, 0], [1 / 3, 1 / 3, 0, 0]]
    torch.testing.assert_close(weights, torch.tensor(expected))
    assert normaliser == 1


NONE = torch.zeros(2, 4, dtype=torch.bool)
EDGES: list[tuple[str, Tensor, Tensor, Tensor, float, float]] = [
    # what it shows, positive, used, reliability, Σ weights / normaliser of code, of paper
    ("nothing is used", NONE, NONE, RELIABILITY, 0.0, 0.0),
    ("no foreground", NONE, USED, RELIABILITY, 1.0, 1.0),
    ("no background", USED, USED, RELIABILITY, 1.0, 1.0),
    ("both", POSITIVE, USED, RELIABILITY, 1.0, 2.0),
    ("teacher sees no background", POSITIVE, USED, RELIABILITY * 0, 1.0, 1.0),
    ("weights of less than 1 are not blown up", NONE, USED, RELIABILITY * 0.1, 0.345, 1.0),
]


@pytest.mark.parametrize("row", EDGES, ids=[row[0] for row in EDGES])
def test_total_weight(row: tuple[str, Tensor, Tensor, Tensor, float, float]) -> None:
    _, positive, used, reliability, code, paper = row
    for norm, expected in (("code", code), ("paper", paper)):
        weights, normaliser = soften_background(positive, used, reliability, norm)  # type: ignore[arg-type]
        torch.testing.assert_close(weights.sum() / normaliser, torch.tensor(expected))
        assert (weights[~used] == 0).all()
