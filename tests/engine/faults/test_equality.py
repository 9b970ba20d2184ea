"""Whether processes hold the same numbers: every changed bit shows, on every process, by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import ranks
from torch import nn

from ssod.engine.faults import equality
from ssod.engine.faults.equality import check_equal_on_ranks, checksum
from ssod.engine.processes import start_processes
from ssod.errors import RunError

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@given(st.integers(0, 2**32 - 1), st.integers(0, 19), st.integers(0, 31))
def test_one_changed_bit_always_shows(seed: int, place: int, bit: int) -> None:
    values = torch.randint(-(2**31), 2**31, (20,), generator=torch.Generator().manual_seed(seed))
    bits = values.to(torch.int32)
    changed = bits.clone()
    changed[place] ^= torch.tensor(-(2**31) if bit == 31 else 2**bit, dtype=torch.int32)
    assert checksum(bits.view(torch.float32)) != checksum(changed.view(torch.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_of_number(dtype: torch.dtype) -> None:
    values = torch.tensor([1, 0, 1, 1]).to(dtype)
    swapped = torch.tensor([0, 1, 1, 1]).to(dtype)
    assert checksum(values) == checksum(values.clone()) != checksum(swapped)
    assert checksum(values[0]) == checksum(values[2]) != checksum(values[1])  # scalars
    assert checksum(values[:0]) == 0


def test_the_layout_in_memory_does_not_matter_and_chunks_do_not_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = torch.randn(2, 3, 4, 5)
    assert checksum(values) == checksum(values.to(memory_format=torch.channels_last))
    bits = values.flatten().view(torch.int32).long()
    expected = sum(int(each) * (2 * (place % 7) + 1) for place, each in enumerate(bits))
    monkeypatch.setattr(equality, "CHUNK", 7)
    assert (int(checksum(values)) - expected) % 2**64 == 0


def compare(rank: int) -> list[str]:
    """What check_equal_on_ranks says of a network: the same, another weight, another count of batches."""
    start_processes("pytorch", 120)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    said = []
    for change in (None, "0.weight", "1.num_batches_tracked"):
        if change and rank == 2:
            network.state_dict()[change].view(-1)[-1].add_(1)
        try:
            said.append(str(check_equal_on_ranks(network, "teacher")))
        except RunError as error:
            said.append(str(error))
        if change == "0.weight":
            network.state_dict()[change].copy_(torch.ones(4, 3))
    return said


def test_all_processes_hear_which_tensor_differs_and_where(tmp_path: Path) -> None:
    (same, weight, count), *others = ranks.run(compare, tmp_path, count=3)
    assert others == [[same, weight, count]] * 2
    assert same == "None"
    assert weight.startswith("teacher: 0.weight and 0 more of 7 tensors are not the same on process 0 and ")
    assert "process 2: " in weight and "\n" not in weight
    assert count.startswith("teacher: 1.num_batches_tracked ")


def test_one_process_has_nothing_to_compare() -> None:
    check_equal_on_ranks(nn.Linear(2, 2), "teacher")
