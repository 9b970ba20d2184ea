"""What a run's folder says of it: done or not, how far, who works on it, and how its attempts ended."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssod.engine.records.writing import close_in_children
from ssod.errors import UserError

ATTEMPTS = "attempts.jsonl"
CLAIM = ".claim"
STAGE_METRICS = "stage_*_*/metrics.jsonl"
TAIL = 1 << 16  # bytes of metrics.jsonl that are looked at first for the last lines,
LONGEST_TAIL = 1 << 24  # and at most: a pseudo_labels line of many classes is long
TELLING = ('"kind": "train"', '"kind": "val"')  # lines that say how far a run is


@contextmanager
def claimed(folder: Path, patience: float = 0.0) -> Iterator[bool]:
    """A block with the right to work on a run; False where somebody else has it.

    patience: seconds in which it is tried again: whoever only looks (`is_claimed`) has it for an instant.
    A lock ends with its process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / CLAIM, "w") as file:
        end = time.monotonic() + patience
        while not (got := _locks(file)) and time.monotonic() < end:
            time.sleep(0.05)
        close_in_children(file)
        yield got


@contextmanager
def alone(work_dir: Path) -> Iterator[None]:
    """A block of writing to a sweep's own files that no other call on the same work dir is in."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        with open(work_dir / ".plan", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(f"work dir {work_dir} can't be written ({error.strerror}): choose another") from error


def is_claimed(folder: Path) -> bool:
    """Whether somebody works on the run now."""
    try:
        with open(folder / CLAIM) as file:
            return not _locks(file, fcntl.LOCK_SH)
    except OSError:
        return False


def _locks(file: Any, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


# ------------------------------------------------------------ attempts


def note(folder: Path, event: str, token: str, **more: Any) -> None:
    """Adds a line to the run's attempts.jsonl: when an attempt starts, and how it ends."""
    where = {"host": socket.gethostname(), "pid": os.getpid(), "time": round(time.time(), 3)}
    line = json.dumps({"event": event, "attempt": token, **where, **more})
    with (folder / ATTEMPTS).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def attempts(folder: Path) -> list[dict[str, Any]]:
    """The lines of attempts.jsonl; a half-written one is left out."""
    return _records(_text(folder / ATTEMPTS))


def has_begun(folder: Path, token: str) -> bool:
    """Whether an attempt has got the run and trains it."""
    return any(line.get("attempt") == token for line in attempts(folder))


def ending(folder: Path, token: str) -> dict[str, Any]:
    """How an attempt ended; `killed` where it could not say so."""
    for line in reversed(attempts(folder)):
        if line.get("attempt") == token and line.get("event") == "end":
            return line
    return {"status": "killed", "error": "the process ended without a word (killed, or out of memory)"}


# ------------------------------------------------------------ progress


@dataclass(frozen=True)
class Progress:
    """How far a run is. ap: of the network to ship, 0 to 1 · eta: seconds · log: where to look."""

    status: str | None = None  # result.json's: running, stopped, failed, done; None: never begun
    iteration: int = 0
    ap: float | None = None
    eta: float | None = None
    error: str = ""
    attempts: int = 0
    log: Path | None = None


def progress(folder: Path, total: int) -> Progress:
    """What the files of a run's folder say; total: its iterations, of all stages."""
    try:
        result = json.loads(_text(folder / "result.json") or "{}")
    except ValueError:
        result = {}
    stages = sorted(folder.glob(STAGE_METRICS))
    files = stages or [folder / "metrics.jsonl"]
    lines = [_records(_tail(file)) for file in files]
    iteration = sum(max((int(each.get("iteration", 0)) for each in some), default=0) for some in lines)
    if not stages:
        iteration = max(iteration, int(result.get("iterations") or 0))
    last = lines[-1] if lines else []
    step = next((each["seconds_per_step"] for each in reversed(last) if each.get("seconds_per_step")), None)
    lived = attempts(folder)
    done = result.get("status") == "done"
    return Progress(
        status=result.get("status"),
        iteration=total if done else min(iteration, total),
        ap=_result_ap(result) if done else _last_ap(last),
        eta=None if step is None or done else max(total - iteration, 0) * step,
        error=str(result.get("error") or ""),
        attempts=sum(each.get("event") == "start" for each in lived),
        log=_log(folder, stages, lived),
    )


def is_done(folder: Path) -> bool:
    """Whether the run has nothing left to do."""
    try:
        return bool(json.loads(_text(folder / "result.json") or "{}").get("status") == "done")
    except ValueError:
        return False


def _log(folder: Path, stages: list[Path], lived: list[dict[str, Any]]) -> Path | None:
    """The training's log; where there is none yet, what the last job printed."""
    training = (stages[-1].parent if stages else folder) / "train.log"
    printed = [Path(each["log"]) for each in lived if "log" in each]
    return next((path for path in (training, *reversed(printed)) if path.exists()), None)


def _result_ap(result: dict[str, Any]) -> float | None:
    metrics = result.get("metrics") or {}
    network = metrics.get("teacher") or metrics.get("student") or {}
    return network.get("bbox_mAP")


def _last_ap(lines: list[dict[str, Any]]) -> float | None:
    """The last validation's AP of the teacher, or of the student where there is none."""
    for line in reversed(lines):
        if line.get("kind") == "val":
            return line.get("teacher/bbox_mAP", line.get("student/bbox_mAP"))
    return None


def _tail(path: Path) -> str:
    """The last whole lines of a file that tell how far a run is, as many as hold a step and a validation."""
    length, text = TAIL, ""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            while True:
                file.seek(max(size - length, 0))
                text = file.read(length).decode("utf-8", "replace")
                text = text if size <= length else text.partition("\n")[2]
                if all(each in text for each in TELLING) or length >= min(size, LONGEST_TAIL):
                    break
                length *= 4
    except OSError:
        return ""
    return "\n".join(line for line in text.split("\n") if any(each in line[:200] for each in TELLING))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _records(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [each for each in found if isinstance(each, dict)]
