"""Peak memory: the arithmetic, and steps whose tensors are known."""

from __future__ import annotations

import torch

from ssod.study.benchmark import memory

MIB = 2**20


def test_the_peak_is_the_largest_sum_on_the_way() -> None:
    assert memory.peak([5, 7, -5, 2, -9]) == 12
    assert memory.peak([-4, 3]) == 0  # what was held before and is given back is not the step's
    assert memory.peak([]) == 0


def test_tensors_that_live_together_add_up() -> None:
    def step() -> None:
        first = torch.zeros(MIB, dtype=torch.uint8)
        second = torch.zeros(2 * MIB, dtype=torch.uint8)
        del first, second
        torch.zeros(MIB, dtype=torch.uint8)

    assert memory.measure(step, "cpu") == 3 * MIB


def test_a_kernels_own_tensors_count() -> None:
    x = torch.rand(MIB // 4)

    def step() -> None:
        (x + 1 + 1).sum()

    assert 2 * MIB <= memory.measure(step, "cpu") < 2 * MIB + 1024
