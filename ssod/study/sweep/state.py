"""What a run's folder says of it: done or not, who works on it, and how its attempts ended."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssod.engine.records.writing import close_in_children
from ssod.errors import UserError

PLACE = "run.json"
ATTEMPTS = "attempts.jsonl"
CLAIM = ".claim"


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


# ------------------------------------------------------------ which run it is


def folders_by_hash(work_dir: Path) -> dict[str, Path]:
    """Which folder has which training, by the hash in its run.json; of several one that is done.

    The hash of what is trained, or, in folders of earlier versions, that of the config.
    """
    found: dict[str, Path] = {}
    for path in sorted(work_dir.glob(f"*/{PLACE}")):
        place = read_json(path)
        digest = place.get("training_sha256") or place.get("config_sha256")
        if digest and not (digest in found and is_done(found[digest])):
            found[digest] = path.parent
    return found


# ------------------------------------------------------------ attempts


def note(folder: Path, event: str, token: str, **more: Any) -> None:
    """Adds a line to the run's attempts.jsonl: when an attempt starts, and how it ends."""
    where = {"host": socket.gethostname(), "pid": os.getpid(), "time": round(time.time(), 3)}
    line = json.dumps({"event": event, "attempt": token, **where, **more})
    with (folder / ATTEMPTS).open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b"\n" else f"\n{line}"  # after one that a full disk cut off
        file.write(f"{line}\n".encode())


def attempts(folder: Path) -> list[dict[str, Any]]:
    """The lines of attempts.jsonl; a half-written one is left out."""
    return read_lines(read_text(folder / ATTEMPTS))


def has_begun(folder: Path, token: str) -> bool:
    """Whether an attempt has got the run and trains it."""
    return any(line.get("attempt") == token for line in attempts(folder))


def ending(folder: Path, token: str) -> dict[str, Any]:
    """How an attempt ended; `killed` where it could not say so."""
    for line in reversed(attempts(folder)):
        if line.get("attempt") == token and line.get("event") == "end":
            return line
    return {"status": "killed", "error": "the process ended without a word (killed, or out of memory)"}


# ------------------------------------------------------------ reading


def is_done(folder: Path) -> bool:
    """Whether the run has nothing left to do."""
    return bool(read_json(folder / "result.json").get("status") == "done")


def read_text(path: Path) -> str:
    """What a file holds; empty where it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; empty where it is missing, broken or no dict."""
    try:
        found = json.loads(read_text(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(text: str) -> list[dict[str, Any]]:
    """The dicts of a text with one JSON value a line; a half-written one is left out."""
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [each for each in found if isinstance(each, dict)]
