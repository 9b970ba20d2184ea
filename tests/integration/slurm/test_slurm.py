"""tools/slurm/train.sbatch under a real controller: the end of the time, requeues, signals, several nodes.

start.sh starts SLURM on loopback. Without it the tests are skipped, and fail where CI=true.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssod.engine.processes import first_host

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[3]
JOB = PROJECT / "tools" / "slurm" / "train.sbatch"
CONFIG = PROJECT / "configs" / "soft_teacher" / "shapes.py"
PATIENCE = 600  # seconds a wait may last: machines differ, and a test that hangs says nothing
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")


class Slurm:
    """The commands of a SLURM that start.sh started."""

    def __init__(self, folder: str) -> None:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        python = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
        self.environment = {**ours, "PATH": path, "PYTHONPATH": python, "OMP_NUM_THREADS": "1"}
        self.environment["SLURM_CONF"] = f"{folder}/slurm.conf"

    def __call__(self, *words: Any, cwd: Path = PROJECT, **variables: str) -> str:
        """What a command prints."""
        environment = {**self.environment, **variables}
        done = subprocess.run(
            [*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def submit(self, options: list[str], *words: Any, cwd: Path = PROJECT, **variables: str) -> str:
        """The number of a job of train.sbatch with a CPU for each task, by default two on one node."""
        usual = ["--ntasks-per-node=2", "--cpus-per-task=1", "--time=60"]
        said = self("sbatch", "--parsable", *usual, *options, JOB, *words, cwd=cwd, **variables)
        return said.strip()

    def job(self, number: str) -> dict[str, str]:
        """SLURM's record of a job: JobState, Restarts, ExitCode ..."""
        return dict(re.findall(r"(\w+)=(\S*)", self("scontrol", "show", "job", number, "--oneliner")))

    def end(self, number: str) -> dict[str, str]:
        """The record of a job when it has ended."""
        wait_until(lambda: self.job(number)["JobState"] in ENDED, f"job {number} to end")
        return self.job(number)


def wait_until(there: Callable[[], Any], what: str) -> None:
    """Returns as soon as it is there, and fails when patience is at its end."""
    deadline = time.time() + PATIENCE
    while not there():
        assert time.time() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.3)


def outcome(record: dict[str, str]) -> tuple[str, str, str]:
    return record["JobState"], record["ExitCode"], record["Restarts"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    here = Path(__file__).parent
    check = subprocess.run([here / "start.sh", "--check"], capture_output=True, text=True, timeout=60)
    if check.returncode != 0:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            check.stderr.strip().removeprefix("error: ")
        )
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        try:
            started = subprocess.run([here / "start.sh", folder], capture_output=True, text=True, timeout=300)
            assert started.returncode == 0, started.stderr
            yield Slurm(folder)
        finally:
            subprocess.run([here / "stop.sh", folder], timeout=120, check=False)


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[str], Path]:
    """Function: a checkout whose tools/train.py does nothing but the code given; its folder.

    The code has `words`, the command line, `rank` and `restarts`.
    """

    def write(code: str) -> Path:
        (tmp_path / "tools").mkdir()
        head = (
            "import os, signal, sys, time\nwords = sys.argv[1:]\nrank = int(os.environ['SLURM_PROCID'])\n"
            "restarts = int(os.environ.get('SLURM_RESTART_COUNT', 0))\n"
            "def say(text):\n    os.write(1, f'{text}\\n'.encode())  # whole lines of all ranks\n"
        )
        (tmp_path / "tools" / "train.py").write_text(head + code)
        return tmp_path

    return write


def printed(folder: Path, job: str) -> str:
    """What a job printed so far."""
    path = folder / f"slurm-{job}.out"
    return path.read_text() if path.exists() else ""


# ---------------------------------------------------------------- the script, with a stand-in for training


def test_a_code_other_than_75_is_the_jobs(slurm: Slurm, stand_in: Callable[[str], Path]) -> None:
    folder = stand_in("sys.exit(int(words[0]) if rank else 0)")
    jobs = {code: slurm.submit([], code, "--seed", 3, cwd=folder) for code in (0, 1, 2)}
    for code, job in jobs.items():
        state = "FAILED" if code else "COMPLETED"
        assert outcome(slurm.end(job)) == (state, f"{code}:0", "0")


def test_requeues_have_a_limit(slurm: Slurm, stand_in: Callable[[str], Path]) -> None:
    folder = stand_in("say(f'start {rank} {restarts} {words}'); sys.exit(75)")
    job = slurm.submit([], "config.py", "--amp", cwd=folder, SSOD_MAX_REQUEUES="1")
    assert outcome(slurm.end(job)) == ("FAILED", "75:0", "1")
    text = printed(folder, job)
    words = ["config.py", "--amp", "--resume"]
    begun = sorted(re.findall(r"^start .*$", text, re.MULTILINE))
    assert begun == [f"start {rank} {restarts} {words}" for rank in (0, 1) for restarts in (0, 1)]
    assert "1 times already (SSOD_MAX_REQUEUES=1)" in text


def test_one_job_of_an_array_is_requeued_alone(slurm: Slurm, stand_in: Callable[[str], Path]) -> None:
    folder = stand_in("say(words); sys.exit(75 if words[2] == '7' and not restarts else 0)")
    words = ("config.py", "--seed", "%a", "--work-dir", "runs/seed_%a")
    array = slurm.submit(["--ntasks-per-node=1", "--array=5-7"], *words, cwd=folder)
    for number in (5, 6, 7):
        job = f"{array}_{number}"
        assert outcome(slurm.end(job)) == ("COMPLETED", "0:0", "1" if number == 7 else "0")
        given = ["config.py", "--seed", str(number), "--work-dir", f"runs/seed_{number}", "--resume"]
        assert printed(folder, job).count(str(given)) == (2 if number == 7 else 1)


REFUSED = [
    pytest.param([], ["config.py", "--resume", "a.pth"], "leave --resume out", id="resume"),
    pytest.param(["--array=1-1"], ["config.py"], "all the same: write %a", id="array without %a"),
    pytest.param([], [], "no config", id="no config"),
    pytest.param(["--chdir=/"], ["config.py"], "submit from the checkout's root", id="elsewhere"),
]


@pytest.mark.parametrize(("options", "words", "said"), REFUSED)
def test_what_the_script_refuses(
    slurm: Slurm, stand_in: Callable[[str], Path], options: list[str], words: list[str], said: str
) -> None:
    folder = stand_in("")
    out = folder / "out"
    job = slurm.submit([*options, f"--output={out}"], *words, cwd=folder)
    assert outcome(slurm.end(job)) == ("FAILED", "2:0", "0")
    assert said in out.read_text() and out.read_text().count("\n") == 1


# Two processes a rank, as a rank and its loader worker; each listens on for 3 s after the first signal.
LISTENS = """
worker = os.fork() == 0
heard = []
def note(number, frame):
    heard.append(number)
    say(f'{signal.Signals(number).name} rank {rank} worker {worker}')
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, note)
say('ready')
end = time.time() + (0 if restarts else 300)
while time.time() < end:
    time.sleep(0.1)
    if heard:
        end = min(end, time.time() + 3)
os._exit(75 if heard and not worker else 0)
"""
BOTH = [f"rank {rank} worker {worker}" for rank in (0, 1) for worker in (False, True)]


@pytest.mark.parametrize("how", [(), ("--full",)], ids=["steps", "whole job"])
def test_the_warning_comes_once_to_every_process_and_requeues(
    slurm: Slurm, stand_in: Callable[[str], Path], how: tuple[str, ...]
) -> None:
    folder = stand_in(LISTENS)
    job = slurm.submit([], "config.py", cwd=folder)
    wait_until(lambda: printed(folder, job).count("ready") == 4, "four processes")
    slurm("scancel", "--signal=USR1", *how, job)
    assert outcome(slurm.end(job)) == ("COMPLETED", "0:0", "1")
    heard = re.findall(r"^SIG.*$", printed(folder, job), re.MULTILINE)
    assert sorted(heard) == [f"SIGUSR1 {who}" for who in BOTH]


def test_a_cancelled_job_stops_and_stays_away(slurm: Slurm, stand_in: Callable[[str], Path]) -> None:
    folder = stand_in(LISTENS)
    job = slurm.submit([], "config.py", cwd=folder)
    wait_until(lambda: printed(folder, job).count("ready") == 4, "four processes")
    slurm("scancel", job)
    time.sleep(12)  # longer than a requeue takes here
    assert slurm.end(job)["JobState"] == "CANCELLED" and slurm.job(job)["Restarts"] == "0"
    heard = re.findall(r"^SIG.*$", printed(folder, job), re.MULTILINE)
    assert sorted(heard) == [f"SIGTERM {who}" for who in BOTH]


# ---------------------------------------------------------------- where the processes meet


@pytest.mark.parametrize("nodes", ["gpu[007-012,031],login1", "a,b", "a1", "r[1,3]n[0-2]", "10.0.0.[8-10]"])
def test_the_first_host_is_slurms(slurm: Slurm, nodes: str) -> None:
    assert first_host(nodes) == slurm("scontrol", "show", "hostnames", nodes).splitlines()[0]


MEETS = """
import torch
from ssod.engine.processes import choose_launcher, start_processes
start_processes(choose_launcher())
total = torch.tensor(10.0 ** rank)
torch.distributed.all_reduce(total)
node, host, port = map(os.environ.get, ('SLURMD_NODENAME', 'MASTER_ADDR', 'MASTER_PORT'))
say(f'{rank} of {total:.0f} on {node} at {host}:{port}')
open(f'met {words[0]} {rank}', 'w').close()
end = time.time() + 300
while sum(name.startswith('met') for name in os.listdir()) < 4 and time.time() < end:
    time.sleep(0.1)
"""


def test_two_jobs_on_the_same_two_nodes_meet_apart(slurm: Slurm, stand_in: Callable[[str], Path]) -> None:
    """Each holds a task on either node until the other's tasks have met as well."""
    folder = stand_in(MEETS)
    two = ["--partition=both", "--nodes=2", "--ntasks-per-node=1"]
    jobs = [slurm.submit(two, name, cwd=folder) for name in ("one", "other")]
    ports = set()
    for job in jobs:
        assert outcome(slurm.end(job)) == ("COMPLETED", "0:0", "0"), printed(folder, job)
        found = re.findall(r"^(\d) of 11 on 127.0.0.(\d) at 127.0.0.1:(\d+)$", printed(folder, job), re.M)
        assert sorted(each[:2] for each in found) == [("0", "1"), ("1", "2")]
        ports |= {each[2] for each in found}
    assert len(ports) == 2


# ---------------------------------------------------------------- the training


def write_config(folder: Path) -> Path:
    """A run of small steps that ends only where it was stopped before: three steps later."""
    path = folder / "endless.py"
    path.write_text(f"""
_base_ = [{str(CONFIG)!r}]
import json
import os
import pathlib

_end = 1_000_000
if "SLURM_RESTART_COUNT" in os.environ:
    _end = json.loads(pathlib.Path({str(folder / "run/result.json")!r}).read_text())["iterations"] + 3
train_cfg = dict(max_iters=_end, val_interval=1_000_000)
train_dataloader = dict(batch_size=2, sampler=dict(counts=(1, 1)))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(indices=4))
default_hooks = dict(scalars=dict(interval=1))
""")
    return path


def steps(work_dir: Path) -> list[int]:
    """The iterations in metrics.jsonl; none before there is one."""
    path = work_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [each["iteration"] for each in map(json.loads, lines) if each["kind"] == "train"]


def requeued(record: dict[str, str]) -> bool:
    """Whether a job waits for its second start or has begun it; or is over."""
    again = record["Restarts"] == "1" and record["JobState"] in ("PENDING", "RUNNING")
    return again or record["JobState"] in ENDED


def test_a_run_goes_on_after_its_time_limit(slurm: Slurm, tmp_path: Path) -> None:
    """SLURM's own warning, two ranks with a loader worker each: checkpoint, requeue, resumed to the end."""
    config, out, work_dir = write_config(tmp_path), tmp_path / "out", tmp_path / "run"
    job = slurm.submit([f"--output={out}", "--signal=USR1@60"], config, "--work-dir", work_dir, "--seed", 4)
    wait_until(lambda: steps(work_dir) or slurm.job(job)["JobState"] in ENDED, "the first step")
    assert slurm.job(job)["JobState"] == "RUNNING", out.read_text()

    # A limit of a few minutes would do, but who knows how long the start takes here; so it is set now.
    hours, minutes, _ = slurm.job(job)["RunTime"].split(":")
    slurm("scontrol", "update", f"JobId={job}", f"TimeLimit={60 * int(hours) + int(minutes) + 2}")
    wait_until(lambda: requeued(slurm.job(job)), "the warning, the stop and the requeue")
    stopped = json.loads((work_dir / "result.json").read_text())
    assert (slurm.job(job)["Restarts"], stopped["status"]) == ("1", "stopped"), out.read_text()
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=60")

    record = slurm.end(job)
    assert outcome(record) == ("COMPLETED", "0:0", "1"), out.read_text()
    result = json.loads((work_dir / "result.json").read_text())
    end = stopped["iterations"] + 3
    assert (result["status"], result["iterations"], result["world_size"]) == ("done", end, 2)
    assert result["images_seen"] == {"labeled": 2 * end, "unlabeled": 2 * end}
    assert steps(work_dir) == list(range(1, end + 1))
    text = out.read_text()
    assert text.count("1 + 1 a step x 2") == 2 and "back into the queue, time 1 of at most 100" in text
    assert text.index("stopped") < text.index(f"resuming {work_dir / 'checkpoints/last.pth'}")


def test_a_users_mistake_is_not_requeued(slurm: Slurm, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = slurm.submit([f"--output={out}"], CONFIG.parent / "shape.py", "--work-dir", tmp_path / "run")
    assert outcome(slurm.end(job)) == ("FAILED", "2:0", "0")
    assert "did you mean" in out.read_text() and "Traceback" not in out.read_text()
