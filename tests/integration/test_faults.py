"""Faults of the machine and of the data in the middle of a run: exit code, one line, what can be resumed."""

import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import faults
from reference.faults import AT, LENGTH, Ended
from reference.modules import load_tool

PROJECT = Path(__file__).resolve().parents[2]
TOOL = PROJECT / "tools" / "train.py"
slow = pytest.mark.slow
mounts = pytest.mark.skipif(not faults.can_mount(), reason="only root may mount file systems")


class Bench:
    """A small world, its work dir, and the command that trains in it."""

    def __init__(self, folder: Path, main: Callable[[list[str]], int]) -> None:
        self.folder, self.main, self.out = folder, main, folder / "run"
        self.config = faults.world(folder)

    def run(self, fault: Any = None, *options: str, before: Any = None, resume: bool = False) -> Ended:
        words = [self.config, "--work-dir", self.out, *(["--resume"] if resume else [])]
        words += ["--cfg-options", *options] if options else []
        return faults.run(self.main, words, fault, before)

    def fails(self, fault: Any, code: int, *options: str, before: Any = None) -> str:
        """The one line of a run that ends with `code`."""
        ended = self.run(fault, *options, before=before)
        assert ended.code == code, ended
        return ended.line

    def result(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.out / "result.json").read_text())
        return content

    def saved(self) -> int:
        """The iteration of the last checkpoint, all of which can be read."""
        from ssod.engine.saving import checkpoints

        return int(checkpoints.load(self.out / "checkpoints/last.pth")["meta"]["iter"])

    def check_intact(self, iteration: int = AT) -> None:
        """The last checkpoint is whole, nothing half-written lies about, and --resume finishes."""
        assert self.saved() == iteration
        assert [path.name for path in self.out.rglob("*.partial")] == []
        ended = self.run(resume=True)
        assert ended.code == 0 and ended.err == "", ended
        result = self.result()
        assert (result["status"], result["iterations"]) == ("done", LENGTH)
        assert self.saved() == LENGTH


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], int]:
    main: Callable[[list[str]], int] = load_tool("train").main
    return main


@pytest.fixture
def bench(
    tmp_path: Path, main: Any, registered: None, no_collection: None, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    # mmengine lays out the config's text anew for each checkpoint, which takes longer than all else here.
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, **_: (text, False))
    return Bench(tmp_path, main)


def intact(bench: Bench, iteration: int = AT) -> str:
    return f"checkpoint {bench.out}/checkpoints/last.pth of iteration {iteration} is intact: run again with "


# ---------------------------------------------------------------- disk


@mounts
def test_a_full_disk_at_a_checkpoint(bench: Bench) -> None:
    """The work dir is a disk of its own; what is on it is copied away before it vanishes with the process."""
    bench.out.mkdir()
    kept = bench.folder / "kept"

    def own_disk() -> None:
        faults.own_mounts()
        faults.put_small_disk(bench.out, 1 << 16)

    def command(words: list[str]) -> int:
        code = bench.main(words)
        (bench.out / "filling").unlink()
        shutil.copytree(bench.out, kept)
        return code

    words = [str(bench.config), "--work-dir", str(bench.out), "--cfg-options"]
    # The checkpoint of 6 iterations shall meet the full disk first.
    options = ["default_hooks.scalars.interval=100", "train_cfg.max_iters=8", "train_cfg.val_interval=8"]
    ended = faults.run(command, [*words, *options], lambda _: faults.fill_disk(bench.out), own_disk)
    assert ended.code == 1
    # A checkpoint is written beside the following steps.
    assert re.search(rf"the disk is full at iteration [5-8], writing {bench.out}/checkpoints/", ended.line)
    assert "(No space left on device; 0 of 64 MiB free): free space" in ended.line
    assert intact(bench) in ended.line
    bench.out.rmdir()
    kept.rename(bench.out)
    bench.check_intact()


def test_a_file_size_limit_at_a_checkpoint(bench: Bench) -> None:
    """As a quota: the metrics still fit, the checkpoint doesn't."""

    def limit(_: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    line = bench.fails(limit, 1)
    assert re.search("the disk takes no more at iteration [56], writing ", line) and "File too large" in line
    assert intact(bench) in line
    bench.check_intact()


@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", pytest.param(".result.json.partial", marks=slow),
     pytest.param(".curves.png.partial", marks=slow)],
)  # fmt: skip
def test_a_full_disk_at_a_small_file(bench: Bench, name: str) -> None:
    aside = bench.folder / "aside"

    def fill(_: Any) -> None:
        if (bench.out / name).exists():
            (bench.out / name).rename(aside)
        (bench.out / name).symlink_to("/dev/full")

    line = bench.fails(fill, 1)
    file = name.removesuffix(".partial").removeprefix(".")
    assert f"writing {bench.out}/{file} (No space left on device" in line or f"{name} (No space" in line
    if aside.exists():
        aside.replace(bench.out / name)
    saved = bench.saved()  # the last may be of before or after the step
    assert saved in (AT, LENGTH) and intact(bench, saved) in line
    bench.check_intact(saved)


@mounts
def test_a_work_dir_that_becomes_read_only(bench: Bench) -> None:
    line = bench.fails(lambda _: faults.make_read_only(bench.out), 1, before=faults.own_mounts)
    assert re.search(f"work dir {bench.out} can't be written at iteration [56], ", line)
    assert "(Read-only file system): make it writable" in line and intact(bench) in line
    bench.check_intact()


def test_a_work_dir_that_cannot_be_made(bench: Bench) -> None:
    (bench.folder / "file").touch()
    bench.out = bench.folder / "file" / "run"
    line = bench.fails(None, 2)
    assert f"work dir {bench.out} can't be written (Not a directory): choose another --work-dir" in line


def test_a_work_dir_that_vanishes(bench: Bench) -> None:
    line = bench.fails(lambda _: shutil.rmtree(bench.out), 1)
    assert re.search(f"work dir {bench.out} is gone at iteration [56]: bring it back", line)
    assert line.endswith("its checkpoints went with it")
    assert not bench.out.exists()  # nobody makes half of it anew
    assert bench.run(resume=True).code == 0 and bench.result()["status"] == "done"


# ---------------------------------------------------------------- data


def empty(folder: Path) -> Callable[[Any], None]:
    """A fault: the folder's files go elsewhere."""

    def fault(_: Any) -> None:
        folder.rename(folder.with_name("away"))
        folder.mkdir()

    return fault


@slow
def test_a_labeled_image_that_vanishes_is_replaced(bench: Bench) -> None:
    """Another is drawn, and the count says so; up to the policy's bound."""
    ended = bench.run(lambda _: [(bench.folder / f"labeled/{n}.png").unlink() for n in range(3)],
                      "train_cfg.val_interval=100", "val_dataloader.dataset.indices=[5,6]",
                      "train_cfg.max_iters=12")  # fmt: skip
    assert ended.code == 0 and ended.err == ""
    bad = bench.result()["bad_images"]
    assert 1 <= bad["count"] <= 3 and bad["files"][0]["reason"] == "No such file or directory"


def test_a_labeled_image_that_vanishes_where_that_is_an_error(bench: Bench) -> None:
    line = bench.fails(empty(bench.folder / "labeled"), 2, "data_policy.on_bad_image=raise")
    assert f"cannot read image {bench.folder}/labeled/" in line and "(No such file or directory)" in line
    (bench.folder / "labeled").rmdir()
    (bench.folder / "away").rename(bench.folder / "labeled")
    bench.check_intact()


@slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_unlabeled_folder_that_is_emptied(bench: Bench, workers: int) -> None:
    folder = bench.folder / "unlabeled"
    line = bench.fails(empty(folder), 2, f"train_dataloader.num_workers={workers}", "train_cfg.max_iters=30")
    assert f"{folder}/" in line and "(No such file or directory)" in line
    assert line.endswith("check the folder they lie in")
    folder.rmdir()
    (bench.folder / "away").rename(folder)
    saved = bench.saved()
    assert AT <= saved < 30
    ended = bench.run(None, f"train_cfg.max_iters={saved + 2}", resume=True)
    assert ended.code == 0 and bench.result()["status"] == "done"


@slow
def test_annotations_that_are_gone_at_a_resume(bench: Bench) -> None:
    assert bench.run(None, f"train_cfg.max_iters={AT}").code == 0
    (bench.folder / "labeled.json").rename(bench.folder / "away.json")
    ended = bench.run(resume=True)
    assert ended.code == 2 and f"{bench.folder}/labeled.json" in ended.line
    (bench.folder / "away.json").rename(bench.folder / "labeled.json")
    bench.check_intact()


# ---------------------------------------------------------------- workers and memory


def test_a_loader_worker_that_is_killed(bench: Bench) -> None:
    def kill(_: Any) -> None:
        # Not those that tests before left in the process from which this one was forked.
        own = [each for each in multiprocessing.active_children() if each._parent_pid == os.getpid()]
        os.kill(own[0].pid or 0, signal.SIGKILL)
        time.sleep(60)  # the news interrupts whatever runs

    line = bench.fails(kill, 1, "train_dataloader.num_workers=2")
    assert "was killed by signal: Killed at iteration 4: most often the machine ran out of memory" in line
    assert "(train_dataloader.num_workers=1 instead of 2)" in line and intact(bench) in line
    bench.check_intact()


@mounts
def test_shared_memory_that_is_too_small(bench: Bench) -> None:
    def small_shared_memory() -> None:
        faults.own_mounts()
        faults.put_small_disk(Path("/dev/shm"), 64)

    line = bench.fails(None, 1, "train_dataloader.num_workers=2", before=small_shared_memory)
    assert "shared memory /dev/shm (" in line and "enlarge it (docker run --shm-size=8g)" in line
    assert line.endswith("no checkpoint was written before")


@slow
def test_no_memory_left_on_the_host(bench: Bench) -> None:
    def limit(_: Any) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (1 << 27)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        torch.empty(1 << 28, dtype=torch.uint8)

    line = bench.fails(limit, 1)
    assert "out of host memory at iteration 4: reserve more (SLURM: --mem)" in line and intact(bench) in line
    bench.check_intact()


@slow
def test_no_memory_left_on_the_gpu(bench: Bench) -> None:
    """There is no GPU to fill: the error is raised as torch words it."""

    def out_of_memory(_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total")

    line = bench.fails(out_of_memory, 1)
    assert "out of GPU memory at iteration 4, which has no 2.50 GiB left: use fewer images" in line
    assert "--amp" in line and intact(bench) in line
    bench.check_intact()


# ---------------------------------------------------------------- values that are not finite


def test_losses_that_stay_nan(bench: Bench) -> None:
    line = bench.fails(faults.spoil_losses, 1)
    assert "training diverged: 2 steps in a row were not finite; iteration 5, learning rate 0.0001, " in line
    assert "loss_cls is nan" in line and f"{bench.folder}/labeled/" in line
    assert f"are in {bench.out}/diverged.json" in line
    steps = json.loads((bench.out / "diverged.json").read_text())["steps"]
    assert [step["iteration"] for step in steps] == [4, 5]
    images = steps[0]["batches"][0]["images"]
    assert sorted(Path(path).parent.name for path in images) == ["labeled", "unlabeled"]
    assert all(Path(path).is_file() for path in images)
    assert bench.result()["bad_steps"] == 2
    bench.check_intact()
    assert bench.result()["bad_steps"] == 0  # those of the steps that were made again


@slow
def test_gradients_that_stay_infinite(bench: Bench) -> None:
    line = bench.fails(faults.spoil_gradients, 1)
    assert "first bad loss term: none, first bad parameter: none" in line
    assert "first bad gradient: student.rpn_head.rpn_reg.weight" in line
    bench.check_intact()


# ---------------------------------------------------------------- the whole command


@slow
def test_the_command_ends_with_its_workers(bench: Bench) -> None:
    """A worker of the real command is killed: exit code, one line, and no process is left behind."""
    words = [sys.executable, TOOL, bench.config, "--work-dir", bench.out, "--cfg-options",
             "train_dataloader.num_workers=2", "train_cfg.max_iters=10000"]  # fmt: skip
    process = subprocess.Popen([str(word) for word in words], stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (bench.out / "checkpoints/last.pth").exists():
        assert process.poll() is None
        time.sleep(0.2)
    workers = [int(word) for word in children.read_text().split()]
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and said.startswith("error: loader worker (pid "), said
    assert said.count("\n") == 1 and "is intact: run again with --resume" in said
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []


@slow
def test_the_fault_is_what_ends_a_run(bench: Bench) -> None:
    """Without one the same run is done: nothing above fails for another reason."""
    ended = bench.run()
    assert ended.code == 0 and ended.err == "", ended
    assert bench.result()["bad_steps"] == 0 and bench.saved() == LENGTH
