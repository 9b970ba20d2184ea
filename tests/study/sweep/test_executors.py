"""What the executors ask of submitit and SLURM: slots, GPUs, threads, arrays; and a table of what goes on."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import submitit

from ssod.errors import UserError
from ssod.study.sweep import local as local_module
from ssod.study.sweep import slurm as slurm_module
from ssod.study.sweep.executors import make_executor
from ssod.study.sweep.jobs import Job
from ssod.study.sweep.local import Local
from ssod.study.sweep.progress import Progress
from ssod.study.sweep.slurm import Slurm
from ssod.study.sweep.table import Board, Row


class Submitted:
    """In the place of submitit's executors: keeps what was asked for."""

    all: list[Submitted]

    def __init__(self, folder: Path) -> None:
        self.folder, self.parameters, self.over = folder, dict[str, Any](), False
        type(self).all.append(self)

    def update_parameters(self, **parameters: Any) -> None:
        self.parameters = parameters

    def submit(self, function: Any, job: Job) -> Submitted:
        self.job = job
        return self

    def done(self) -> bool:
        return self.over


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[Submitted]:
    """What is submitted in a test, to whatever."""
    Submitted.all = []
    for name in ("LocalExecutor", "SlurmExecutor"):
        monkeypatch.setattr(submitit, name, Submitted)
    return Submitted.all


def jobs(folder: Path, number: int) -> list[Job]:
    return [Job(str(folder / f"run{each}"), "config.py", f"token{each}") for each in range(number)]


def machine(monkeypatch: pytest.MonkeyPatch, cores: int, gpus: tuple[int, ...] = ()) -> None:
    monkeypatch.setattr(local_module, "usable_cores", lambda: cores)
    monkeypatch.setattr(local_module, "_visible_gpus", lambda: gpus)


@pytest.mark.parametrize(
    ("said", "count", "expected"),
    [(None, 2, (0, 1)), ("", 0, ()), ("2,5", 2, (2, 5)), ("3,-1,4", 1, (3,)), ("GPU-1f", 0, ())],
)
def test_visible_gpus_by_number(
    monkeypatch: pytest.MonkeyPatch, said: str | None, count: int, expected: tuple[int, ...]
) -> None:
    gpus_that_torch_sees(monkeypatch, said, count)
    assert local_module._visible_gpus() == expected


@pytest.mark.parametrize("said", ["GPU-1f,GPU-2e", "MIG-77", "1,GPU-2e"])
def test_gpus_named_in_another_way_are_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    gpus_that_torch_sees(monkeypatch, said, said.count(",") + 1)
    with pytest.raises(UserError, match=f"CUDA_VISIBLE_DEVICES={said}: name GPUs by number"):
        local_module._visible_gpus()


def gpus_that_torch_sees(monkeypatch: pytest.MonkeyPatch, said: str | None, count: int) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)


@pytest.mark.parametrize(
    ("cores", "asked", "at_once", "threads"), [(8, None, 8, 1), (8, 3, 3, 2), (2, 4, 4, 1), (1, None, 1, 1)]
)
def test_cores_are_shared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, asked: int | None, at_once: int, threads: int
) -> None:
    machine(monkeypatch, cores)
    local = Local(tmp_path, asked)
    assert (local.most, local.threads, local.room(1)) == (at_once, threads, at_once - 1)
    local.close()


def test_each_run_has_gpus_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, submitted: list[Submitted]
) -> None:
    """Two runs of two GPUs on five; the third takes the place of the first that ends."""
    machine(monkeypatch, 16, (1, 2, 4, 6, 7))
    local = Local(tmp_path, None, gpus=2)
    assert local.most == 2
    first, second = local.start(jobs(tmp_path, 2))
    gpus = [(each.parameters["visible_gpus"], each.parameters["tasks_per_node"]) for each in submitted]
    assert gpus == [((1, 2), 2), ((4, 6), 2)]
    assert submitted[0].folder == tmp_path / "run0" / "jobs" and submitted[0].job.threads == 8
    second.over = True
    assert (local.over(first), local.over(second)) == (False, True)
    local.start(jobs(tmp_path, 1))
    assert submitted[-1].parameters["visible_gpus"] == (4, 6)
    local.close()
    with pytest.raises(UserError, match="a run wants 8 GPUs and there are 5"):
        Local(tmp_path, None, gpus=8)


def test_jobs_live_as_long_as_the_sweep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, submitted: list[Submitted]
) -> None:
    """A lock for each call, given back when it stops; what a killed one left is removed."""
    machine(monkeypatch, 2)
    one, other = Local(tmp_path), Local(tmp_path)
    one.start(jobs(tmp_path, 1))
    life = Path(submitted[0].job.life or "")
    assert len(list(life.parent.iterdir())) == 2

    def is_held() -> bool:
        with life.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    assert is_held()
    one.stop([])
    assert not is_held()
    third = Local(tmp_path)  # as after a kill: the file is there and nobody's
    assert not life.exists() and other.life.exists()
    for each in (one, other, third):
        each.close()
    assert not list(life.parent.iterdir())


def test_runs_become_an_array(
    tmp_path: Path, submitted: list[Submitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = make_executor("slurm", tmp_path, 3, 8, {"partition": "gpu", "time": 90})
    assert isinstance(slurm, Slurm)
    asked = slurm.parameters
    assert (asked["gpus_per_node"], asked["ntasks_per_node"], asked["partition"], asked["time"]) == (
        8,
        8,
        "gpu",
        90,
    )
    plain = Slurm(tmp_path, None, None, {})
    assert "gpus_per_node" not in plain.parameters and plain.parameters["time"] == 24 * 60
    # The first array holds its own jobs back; the next one knows nothing of those two.
    assert (slurm.room(0) > 1000, slurm.room(2), slurm.room(3)) == (True, 1, 0)


def test_what_sbatch_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs, one at a time: submitit's script for the array; what is in the queue is not over."""
    scripts: list[str] = []

    def commands(words: list[str], **options: Any) -> Any:
        if words[0] == "sbatch":
            scripts.append(Path(words[1]).read_text())
            return subprocess.CompletedProcess(words, 0, "Submitted batch job 7\n", "")
        said = {"squeue": "7 0 RUNNING\n7 1 PENDING\n5 N/A RUNNING\n"}.get(words[0], "")
        return subprocess.CompletedProcess(words, 0, said, "")

    monkeypatch.setattr(
        submitit.core.utils.CommandFunction, "__call__", lambda self: commands(self.command).stdout
    )
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    monkeypatch.setattr(slurm_module.subprocess, "run", commands)
    slurm = Slurm(tmp_path / "toys", 1, None, {"partition": "one", "cpus_per_task": 3})
    handles = slurm.start(jobs(tmp_path, 2))
    [text] = scripts
    for line in ("array=0-1%1", "partition=one", "cpus-per-task=3", "job-name=toys", "signal=USR2@90"):
        assert f"#SBATCH --{line}" in text
    assert [each.job_id for each in handles] == ["7_0", "7_1"]
    assert [slurm.over(each) for each in handles] == [False, False]
    slurm.queued = {"7_1", "5"}
    assert [slurm.over(each) for each in handles] == [True, False]


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"--executor slurm: .*srun"):
        Slurm(tmp_path, 1, None, {}).start(jobs(tmp_path, 1))
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    with pytest.raises(UserError, match="partitoin"):
        Slurm(tmp_path, 1, None, {"partitoin": "one"}).start(jobs(tmp_path, 1))
    with pytest.raises(UserError, match="array_parallelism is what --max-parallel sets"):
        Slurm(tmp_path, 1, None, {"array_parallelism": 4})


# ---------------------------------------------------------------- the table


def rows(folder: Path) -> list[Row]:
    log = folder / "a" / "train.log"
    seen = Progress("running", 50, 0.123, 75.0, "", 2, log)
    return [
        Row("a", 200, folder / "a", "running", seen),
        Row("b", 200, folder / "b"),
        Row(
            "c",
            200,
            folder / "c",
            "failed",
            Progress("failed", 7, None, None, "why", 3, folder / "jobs/9.err"),
        ),
    ]


def test_the_table_says_state_iteration_time_left_ap_and_log(tmp_path: Path) -> None:
    board = Board("sweep toys", rows(tmp_path), tmp_path)
    table = board.table()
    cells = [list(column.cells) for column in table.columns]
    assert [list(row) for row in zip(*cells, strict=True)] == [
        ["a", "running", "50/200", "1:15", "12.3", "2", "train.log"],
        ["b", "waiting", "0/200", "", "", "", ""],
        ["c", "failed", "7/200", "", "", "3", "../jobs/9.err"],
    ]
    assert str(table.title).startswith("sweep toys: 1 running, 1 waiting, 1 failed; in ")
    few = board.table(limit=2)
    assert list(few.columns[0].cells) == ["a", "c"], "what something happens to is shown first"


def test_without_a_terminal_changes_are_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = rows(tmp_path)
    board = Board("sweep toys", made, tmp_path)
    with board.shown():
        for _ in range(3):
            board.update()
        made[1].state = "running"
        board.update()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "a  running  50/200  eta 1:15  AP 12.3"
    assert said[1].startswith("c  failed  7/200  log ") and said[1].endswith("jobs/9.err")
    assert said[2:] == ["b  running  0/200"]
    board.final()
    assert "failed: c: why (log: " in capsys.readouterr().out
