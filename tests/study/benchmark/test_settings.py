"""What the command line may say, and what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ssod.errors import UserError
from ssod.study.benchmark.settings import Settings, parse_batch, parse_size


def test_sizes_and_batches() -> None:
    assert parse_size("640x480") == (640, 480)
    assert parse_batch(" 1+4 ") == (1, 4)


@pytest.mark.parametrize("text", ["640", "640x", "16x480", "0x0", "640*480", "-640x480"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(UserError, match=r"such as 640x480"):
        parse_size(text)


@pytest.mark.parametrize("text", ["5", "0+4", "1+0", "1x4"])
def test_bad_batches(text: str) -> None:
    with pytest.raises(UserError, match=r"such as 1\+4"):
        parse_batch(text)


BAD: list[tuple[dict[str, Any], str]] = [
    (dict(rounds=0), "--rounds 0: give 1 or more"),
    (dict(warm_steps=-1), "--warm-steps -1: give 0 or more"),
    (dict(threads=0), "--threads 0"),
    (dict(boxes=0), "--boxes 0"),
    (dict(clock="processor", device="cpu"), "add --threads 1 --device cpu"),
    (dict(amp_mmdet=True), "add --against mmdet"),
    (dict(steps_only=True, trace="trace.json"), "leave out one of them"),
    (dict(json_file="/nowhere/at/all.json"), "its folder does not exist"),
    (dict(trace="/nowhere/at/all.json"), "its folder does not exist"),
]


@pytest.mark.parametrize(("options", "said"), BAD, ids=[str(row[0]) for row in BAD])
def test_what_can_t_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Settings("config.py", **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_out_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        Settings("config.py", out=str(tmp_path / "file"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(UserError, match="torch sees no GPU"):
        Settings("config.py", device="cuda")
    assert Settings("config.py").on == "cpu"
