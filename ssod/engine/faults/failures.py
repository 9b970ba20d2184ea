"""What a machine may deny a run, told in one line: memory, disk, loader workers, the other processes."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import get_rank, get_world_size

from ssod.engine.faults.failure_kinds import KINDS
from ssod.engine.saving import checkpoints
from ssod.errors import RunError, UserError


@contextmanager
def known_failures(work_dir: Path, runner: Any = None) -> Iterator[None]:
    """A block of a run: what the machine denied it comes out as a RunError, all else as it is.

    The line says what, in which iteration and process, which knob to turn, and which checkpoint is there.

    runner: the one that trains, None where there is none yet.
    """
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:
        text = explain(error, work_dir, runner)
        if text is None:
            raise
        raise RunError(text) from error


def explain(error: BaseException, work_dir: Path, runner: Any = None) -> str | None:
    """The line of a known failure; None for any other error. It may be the cause or context of `error`."""
    for each in _chain(error):
        for kind in KINDS:
            text = kind(each, work_dir, runner)
            if text is not None:
                return f"{_process()}{text}; {last_checkpoint(work_dir)}"
    return None


def last_checkpoint(work_dir: Path) -> str:
    """Half a sentence: the iteration of the work dir's last checkpoint, which was read for it; or none."""
    path = work_dir / checkpoints.FOLDER / checkpoints.LAST
    if not path.exists():
        return "no checkpoint was written before" if work_dir.exists() else "its checkpoints went with it"
    try:
        iteration = checkpoints.load(path).get("meta", {}).get("iter")
    except UserError:
        return f"checkpoint {path} can't be read from here now"
    return f"checkpoint {path} of iteration {iteration} is intact: run again with --resume"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, and what was being handled when it came."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)


def _process() -> str:
    """Which process speaks, where there are several."""
    return f"process {get_rank()} on {socket.gethostname()}: " if get_world_size() > 1 else ""
