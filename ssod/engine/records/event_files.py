"""TensorBoard's event files, written without a thread of their own and without importing TensorFlow."""

import itertools
import os
import socket
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from mmengine.visualization.vis_backend import BaseVisBackend

from ssod.engine.records.writing import naming
from ssod.registry import VISBACKENDS

FOLDER = "tensorboard"


@VISBACKENDS.register_module()
class TensorBoard(BaseVisBackend):  # type: ignore[misc]
    """Scalars for `tensorboard --logdir <work dir>`, in `<work dir>/tensorboard/`.

    mmengine's own backend leaves writing to a thread: what is not flushed is lost with the process, and a
    full disk ends in a traceback of the thread. Here each call appends its records and returns. The file is
    opened by the first scalar, and says from which step on older files are void: what a stopped run had
    written after the checkpoint from which it was resumed. `void_from`: the step; None: the first scalar's.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir)
        self.path: Path | None = None
        self.void_from: int | None = None

    def _init_env(self) -> None:
        """Nothing: the first scalar opens the file."""

    @property
    def experiment(self) -> Any:
        """The event file's path, None before the first scalar."""
        return self.path

    def add_scalar(self, name: str, value: Any, step: int = 0, **options: Any) -> None:
        """Appends one number."""
        self.add_scalars({name: value}, step)

    def add_scalars(
        self, scalar_dict: Mapping[str, Any], step: int = 0, file_path: str | None = None, **options: Any
    ) -> None:
        """Appends numbers of one step; they are on disk when this returns."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        now, events = time.time(), []
        if self.path is None:
            folder = Path(self._save_dir)
            name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
            paths = (folder / f"{name}.{number}" for number in itertools.count())
            self.path = next(path for path in paths if not path.exists())  # of one process, in one second
            with naming(folder):
                folder.mkdir(parents=True, exist_ok=True)
            events.append(Event(wall_time=now, file_version="brain.Event:2"))
            start = SessionLog(status=SessionLog.START)
            void_from = step if self.void_from is None else self.void_from
            events.append(Event(wall_time=now, step=void_from, session_log=start))
        values = [Summary.Value(tag=name, simple_value=float(each)) for name, each in scalar_dict.items()]
        events.append(Event(wall_time=now, step=step, summary=Summary(value=values)))
        with naming(self.path), self.path.open("ab") as file:
            file.write(_records(events))


def _records(events: list[Any]) -> bytes:
    """The events in TensorFlow's record format."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()


def with_folders(visualizer: Mapping[str, Any], work_dir: Path) -> dict[str, Any]:
    """A visualizer's config whose backends write into the work dir, each into a folder of its own.

    A backend with a `save_dir` keeps it.
    """
    backends = visualizer.get("vis_backends") or []
    several = [backends] if isinstance(backends, Mapping) else list(backends)
    placed = [
        {"save_dir": str(work_dir / _folder_of(each)), **each} if isinstance(each, Mapping) else each
        for each in several
    ]
    return {**visualizer, "vis_backends": placed or None}


def _folder_of(backend: Mapping[str, Any]) -> str:
    """tensorboard, wandb, local, ...: the type without mmengine's suffix, in small letters."""
    return str(backend.get("type", "")).rpartition(".")[2].removesuffix("VisBackend").lower() or "visualizer"
