"""The loop over a sweep's runs, with jobs that a test scripts, and with real ones in this process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from ssod.study.sweep import driver, state
from ssod.study.sweep.command import sweep
from ssod.study.sweep.driver import Driver
from ssod.study.sweep.jobs import Job
from ssod.study.sweep.plan import Run
from ssod.study.sweep.progress import progress


def finish(folder: Path, status: str, iterations: int = 5) -> None:
    """What a training leaves."""
    content = {"status": status, "iterations": iterations, "metrics": {"student": {"bbox_mAP": 0.25}}}
    (folder / "result.json").write_text(json.dumps(content))


class Scripted:
    """An executor whose jobs end as the test says: a list of ends for each run, by name."""

    in_process = False

    def __init__(self, ends: dict[str, list[Any]], most: int = 2) -> None:
        self.ends, self.most = ends, most
        self.started: list[str] = []
        self.stopped = 0
        self.batches: list[int] = []

    def room(self, active: int) -> int:
        return self.most - active

    def start(self, todo: Sequence[Job]) -> list[Job]:
        self.batches.append(len(todo))
        for job in todo:
            self.started.append(Path(job.folder).name)
            assert json.loads(Path(job.folder, "run.json").read_text())["name"] == Path(job.folder).name
        return list(todo)

    def over(self, job: Job) -> bool:
        folder = Path(job.folder)
        script = self.ends[folder.name]
        end = script.pop(0) if script else "done"
        if callable(end):
            return bool(end(folder))
        if end == "killed":
            state.note(folder, "start", job.token)
            return True
        if end != "held":
            state.note(folder, "start", job.token)
            finish(folder, {"refused": "failed"}.get(end, end))
        state.note(folder, "end", job.token, status=end, **({"error": f"why {end}"} if "e" in end else {}))
        return True

    def stop(self, jobs: Sequence[Job]) -> None:
        self.stopped += 1

    def close(self) -> None:
        pass


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Scripted]]:
    """Function: runs the loop over scripted ends; its exit code and the executor."""
    monkeypatch.setattr(driver, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(driver, "HELD_FOR", 0.05)

    def run(retries: int = 2, most: int = 2, **ends: list[Any]) -> tuple[int, Scripted]:
        executor = Scripted(ends, most)
        runs = [
            Run(name, tmp_path / name, {"method": name}, False, Config(), "0" * 64, "1" * 64, None, 5)
            for name in ends
        ]
        made: Any = executor
        return Driver("toys", runs, tmp_path, made, retries).run(), executor

    return run


def test_all_done_and_nothing_twice(drive: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, executor = drive(a=[], b=[], c=[], most=2)
    assert (code, executor.started, executor.batches) == (0, ["a", "b", "c"], [2, 1])
    assert "sweep toys: 3 done" in capsys.readouterr().out
    code, executor = drive(a=[], b=[], c=[], d=[])
    assert (code, executor.started) == (0, ["d"])


def test_a_job_that_is_done_is_let_tidy_up(drive: Any) -> None:
    """The result says done while the job still lives: the loop ends when the job has."""
    looks = []

    def tail(folder: Path) -> bool:
        finish(folder, "done")
        looks.append(folder.name)
        return len(looks) == 3

    code, executor = drive(a=[tail] * 3)
    assert (code, looks, executor.stopped) == (0, ["a"] * 3, 0)


@pytest.mark.parametrize("end", ["failed", "killed"])
def test_what_failed_is_tried_again_so_often(
    drive: Any, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, executor = drive(a=[end, end], b=[])
    assert (code, executor.started.count("a"), executor.started.count("b")) == (0, 3, 1)
    code, executor = drive(c=[end] * 9, retries=1)
    assert (code, executor.started) == (1, ["c"] * 2)
    said = capsys.readouterr().out
    assert "again (1 of 1)" in said and "failed: c: " in said
    code, executor = drive(c=[end, "done"], retries=1)  # another call tries again
    assert (code, executor.started) == (0, ["c"] * 2)


def test_bad_input_is_not_tried_again(drive: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, executor = drive(a=["refused"], b=[])
    assert (code, executor.started) == (1, ["a", "b"])
    assert "failed: a: why refused" in capsys.readouterr().out


def test_what_another_holds_is_waited_for(
    drive: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other one finishes `a` and gives `b` back undone."""
    holds = [state.claimed(tmp_path / name) for name in ("a", "b")]
    assert all(each.__enter__() for each in holds)

    def give_back(folder: Path) -> bool:
        finish(tmp_path / "a", "done")
        for each in holds:
            each.__exit__(None, None, None)
        return False

    code, executor = drive(a=[], b=[], c=[give_back, "done"])
    assert (code, executor.started) == (0, ["c", "b"])
    said = capsys.readouterr().out
    assert "a  held by another" in said and "a  done" in said


def test_a_training_outside_of_sweeps_is_waited_for(drive: Any) -> None:
    code, executor = drive(a=["held", "held", "done"], retries=0)
    assert (code, executor.started) == (0, ["a"] * 3)


def test_stopped_runs_go_on_unless_they_stand_still(drive: Any, tmp_path: Path) -> None:
    """A job that SLURM stopped when its time was up goes on; one that always stops at once is a failure."""
    calls = []

    def further(folder: Path) -> bool:
        calls.append(folder)
        token = "unknown"
        finish(folder, "stopped", len(calls))
        state.note(folder, "end", token, status="stopped")
        return False

    code, executor = drive(a=[further, "stopped", "done"], retries=0)
    assert (code, executor.started) == (0, ["a"] * 2)
    code, executor = drive(
        b=["stopped"] * 9, retries=1
    )  # 5 iterations each time: only the first came further
    assert (code, executor.started) == (1, ["b"] * 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_and_the_same_call_goes_on(
    drive: Any, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def strike(folder: Path) -> bool:
        os.kill(os.getpid(), number)
        return False

    before = signal.getsignal(number)
    code, executor = drive(a=[strike, "stopped"], b=["done"], c=[])
    assert (code, executor.started, executor.stopped) == (75, ["a", "b"], 1)
    assert "stopped with 1 of 3 runs" in capsys.readouterr().out
    assert signal.getsignal(number) == before
    code, executor = drive(a=[], b=[], c=[])
    assert (code, executor.started) == (0, ["a", "c"])


def test_a_second_signal_does_not_wait(drive: Any) -> None:
    def strike(folder: Path) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return False

    code, executor = drive(a=[strike, strike, *[lambda _: False] * 1000])
    assert (code, executor.stopped) == (75, 1)


def test_a_folder_that_cant_be_made_is_that_runs_failure(
    drive: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text("a file")
    code, executor = drive(a=[], b=[])
    assert (code, executor.started) == (1, ["b"])
    assert f"failed: a: {tmp_path}/a can't be written" in capsys.readouterr().out


# ---------------------------------------------------------------- real ones, in this process


@pytest.fixture
def toys(tmp_path: Path, registered: None) -> Callable[..., tuple[int, Path]]:
    """Function: runs a sweep of toys in this process; its exit code and its work dir."""
    from reference.toy_sweep import write_sweep

    def run(more: str = "", config: str = "", **options: Any) -> tuple[int, Path]:
        place = tmp_path / "w"
        return sweep(write_sweep(tmp_path, more, config), "debug", work_dir=place, **options), place

    return run


def test_toys_train(toys: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, place = toys("iterations = 4\nsupervised = 'toy.py'\n")
    assert code == 0
    listed = json.loads((place / "sweep.json").read_text())
    assert [each["twin"] for each in listed["runs"]] == [True, True]  # the toy is its own twin
    for each, rate in zip(listed["runs"], (0.1, 0.2), strict=True):
        folder = place / each["folder"]
        result = json.loads((folder / "result.json").read_text())
        assert (result["status"], result["iterations"]) == ("done", 4)
        assert json.loads((folder / "run.json").read_text()) == {
            k: v for k, v in each.items() if k != "folder"
        }
        config = Config.fromfile(folder / "config.py")
        assert config.optim_wrapper.optimizer.lr == rate == each["axes"]["rate"]
        assert (config.train_cfg.val_interval, config.param_scheduler[0].milestones) == (
            2,
            [3],
        )  # of 8: 4, [5]
        assert [line["event"] for line in state.attempts(folder)] == ["start", "end"]
        seen = progress(folder, 4)
        assert (seen.status, seen.iteration, seen.attempts) == ("done", 4, 1)
        assert seen.ap == result["metrics"]["teacher"]["bbox_mAP"]
    code, _ = toys("iterations = 4\nsupervised = 'toy.py'\n")
    assert code == 0 and len(state.attempts(folder)) == 2


def test_toys_that_are_stopped_go_on(toys: Any, tmp_path: Path) -> None:
    """SIGTERM in the third step of the first run: 75 and a checkpoint, then on to what it would have been."""
    options = {"model.signals": 2, "default_hooks.scalars.interval": 1}
    code, place = toys(options=options)
    assert code == 75
    states = {path.parent.name: json.loads(path.read_text()) for path in place.glob("*/result.json")}
    assert [(each["status"], each["iterations"]) for each in states.values()] == [("stopped", 3)]
    for expected in (75, 0):  # then the second run is stopped
        code, _ = toys(options=options)
        assert code == expected
    results = [json.loads(path.read_text()) for path in sorted(place.glob("*/result.json"))]
    assert [each["iterations"] for each in results] == [8, 8]
    from reference.toy_sweep import write_sweep

    (tmp_path / "whole").mkdir()
    assert sweep(write_sweep(tmp_path / "whole"), "debug", work_dir=tmp_path / "whole" / "w") == 0
    whole = [json.loads(p.read_text()) for p in sorted((tmp_path / "whole/w").glob("*/result.json"))]
    assert [each["metrics"] for each in results] == [each["metrics"] for each in whole]


def test_toys_that_fail_say_why(toys: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code, place = toys("runs = [dict(breaks=3), dict(breaks=99), dict(odd=1)]\n"
                       "axes = dict(method=['toy'])\n"
                       "options = dict(breaks='model.breaks', odd='model.oddd')\n", retries=1)  # fmt: skip
    assert code == 1
    said = capfd.readouterr().out
    assert "failed: toy-breaks_3-" in said and "the toy breaks" in said
    assert "failed: toy-odd_1-" in said and "oddd" in said
    counts = {path.name.rpartition("-")[0]: len(state.attempts(path)) for path in place.glob("toy-*")}
    assert counts == {"toy-breaks_3": 4, "toy-breaks_99": 2, "toy-odd_1": 2}
