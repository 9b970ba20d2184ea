"""Checkpoint files: whole or not there, read without running code, the last few kept."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssod.engine.faults.finite_guard import DivergedError
from ssod.engine.saving import checkpoint_writer, checkpoints
from ssod.engine.saving.checkpoint_writer import CheckpointWriter
from ssod.engine.train import train
from ssod.errors import UserError

Config = Callable[..., Path]


def content(value: float) -> dict[str, Any]:
    return {"state_dict": {"weight": torch.full((1000,), value)}}


def test_two_names_are_one_file_and_replaced_as_a_whole(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path)
    writer.submit(content(1.0), ["last.pth", "iter_1.pth"])
    writer.submit(content(2.0), ["last.pth", "iter_2.pth"])
    writer.wait()
    values = {path.name: torch.load(path)["state_dict"]["weight"][0].item() for path in tmp_path.iterdir()}
    assert values == {"last.pth": 2.0, "iter_2.pth": 2.0, "iter_1.pth": 1.0}
    assert (tmp_path / "last.pth").samefile(tmp_path / "iter_2.pth")


def test_without_hard_links_there_are_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint_writer.write(content(1.0), tmp_path, ["last.pth", "iter_1.pth"])
    assert (tmp_path / "last.pth").read_bytes() == (tmp_path / "iter_1.pth").read_bytes()


def test_file_and_folder_are_on_disk_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def note_sync(handle: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        sync(handle)

    def note_replace(*names: Any) -> None:
        done.append("rename")
        replace(*names)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    checkpoint_writer.write(content(1.0), tmp_path, ["last.pth"])
    assert done == ["file", "rename", "folder"]


@pytest.mark.parametrize("room", [0, 700, 3000])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    writer = CheckpointWriter(tmp_path)
    writer.submit(content(1.0), ["last.pth"])
    writer.wait()
    before = (tmp_path / "last.pth").read_bytes()
    whole = torch.save

    def save(value: Any, file: Any) -> None:
        whole(value, _Small(file, room))

    monkeypatch.setattr(torch, "save", save)
    writer.submit(content(2.0), ["last.pth"])
    with pytest.raises(OSError, match="No space left on device") as caught:
        writer.wait()
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "last.pth")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"last.pth": before}
    writer.check()  # said once


class _Small:
    """A file on a disk that is full after `room` bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: Any) -> int:
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written: int = self.file.write(data)
        return written

    def flush(self) -> None:
        self.file.flush()


def test_the_state_is_of_the_moment_though_training_goes_on() -> None:
    weight = torch.zeros(3)
    copy = checkpoints.on_host({"a": [weight, (weight, 1)]})
    weight += 1
    assert copy["a"][0].sum() == copy["a"][1][0].sum() == 0


def test_the_last_few_are_kept(toy_config: Config, tmp_path: Path) -> None:
    options = {"default_hooks.checkpoint.interval": 2, "default_hooks.checkpoint.keep": 3}
    train(toy_config(), work_dir=tmp_path / "a", options=options)
    assert [path.name for path in sorted((tmp_path / "a" / "checkpoints").glob("iter_*"))] == [
        f"iter_0000000{number}.pth" for number in (4, 6, 8)
    ]
    train(toy_config(), work_dir=tmp_path / "b", options={"default_hooks.checkpoint.keep": 1})
    assert not list((tmp_path / "b" / "checkpoints").glob("iter_*"))
    with pytest.raises(UserError, match="keep=0"):
        train(toy_config(), work_dir=tmp_path / "c", options={"default_hooks.checkpoint.keep": 0})


def test_ours_hold_values_only(toy_config: Config, tmp_path: Path) -> None:
    """torch's own reader takes them, with no type beside its own."""
    train(toy_config(), work_dir=tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        assert {"meta", "state_dict", "message_hub"} <= content.keys()
    content = torch.load(tmp_path / "checkpoints" / "last.pth", weights_only=True)
    assert {"optimizer", "param_schedulers", "random_state", "scalars"} <= content.keys()
    assert content["meta"]["size"] == {"world_size": 1, "counts": (2,), "accumulative_counts": 1}


@pytest.mark.parametrize("damage", ["empty", "half", "text"])
def test_a_broken_file_is_refused_and_a_whole_one_named(
    toy_config: Config, tmp_path: Path, damage: str
) -> None:
    train(toy_config(), work_dir=tmp_path, options={"train_cfg.max_iters": 7})
    last = tmp_path / "checkpoints" / "last.pth"
    data = last.read_bytes()
    last.unlink()  # not through the hard link
    last.write_bytes({"empty": b"", "half": data[: len(data) // 2], "text": b"hello"}[damage])
    with pytest.raises(UserError, match=r"whole ones may be .*iter_00000007.pth") as caught:
        train(toy_config(), work_dir=tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    result = train(toy_config(), work_dir=tmp_path, resume=tmp_path / "checkpoints" / "iter_00000006.pth")
    assert result["status"] == "done"


def test_where_the_last_is_missing_the_others_are_not_cleared_away(
    toy_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError):
        train(toy_config("model.update(bad_steps=(3, 4, 5, 6, 7))\n"), work_dir=tmp_path)
    (tmp_path / "checkpoints" / "last.pth").unlink()
    for resume in (False, True):
        with pytest.raises(UserError, match=r"--resume .*iter_00000006.pth"):
            train(toy_config(), work_dir=tmp_path, resume=resume)


def test_another_run_s_best_is_no_bound_for_a_new_work_dir(toy_config: Config, tmp_path: Path) -> None:
    """Which has a best of its own from the first validation on; the run's own work dir keeps its bound."""
    train(toy_config(), work_dir=tmp_path / "a", options={"train_cfg.max_iters": 6})
    path = tmp_path / "a" / "checkpoints" / "last.pth"
    content = torch.load(path, weights_only=True)
    info = content["message_hub"]["runtime_info"]
    info.update(best_teacher=2.0, best_student=2.0)  # above 1, which this metric never is
    torch.save(content, path)
    before = (tmp_path / "a" / "checkpoints" / "best_teacher.pth").read_bytes()
    train(toy_config(), work_dir=tmp_path / "b", resume=path)
    train(toy_config(), work_dir=tmp_path / "a", resume=True)
    assert (tmp_path / "a" / "checkpoints" / "best_teacher.pth").read_bytes() == before
    for network in ("teacher", "student"):
        best = torch.load(tmp_path / "b" / "checkpoints" / f"best_{network}.pth", weights_only=True)
        assert best["meta"]["iter"] == 8


def test_text_in_a_checkpoint_is_never_run(toy_config: Config, tmp_path: Path) -> None:
    """mmengine's resume reads `meta.config` as a config file, which is Python."""
    train(toy_config(), work_dir=tmp_path / "run", options={"train_cfg.max_iters": 3})
    path = tmp_path / "run" / "checkpoints" / "last.pth"
    content = torch.load(path, weights_only=True)
    content["meta"]["config"] = f"import os\nos.system('touch {tmp_path / 'executed'}')\n"
    torch.save(content, path)
    assert train(toy_config(), work_dir=tmp_path / "run", resume=True)["status"] == "done"
    assert not (tmp_path / "executed").exists()
