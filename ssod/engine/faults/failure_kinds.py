"""How each failure that a machine may cause is recognised, and what is said of it.

A kind is a function `(error, work_dir, runner) -> text or None`: what happened, where, and what to do.
"""

import errno
import os
import re
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size

SHARED_MEMORY = "/dev/shm"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_WRITING = (errno.EROFS, errno.EACCES, errno.EPERM)
_NO_DEVICE = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT)
_LITTLE = 1 << 20  # bytes: with less, a writer that doesn't say why it failed found the disk full
_GONE = (errno.ENOENT, errno.ENOTDIR)
_GPU_MEMORY = re.compile(r"CUDA (error: )?out of memory|CUBLAS_STATUS_ALLOC_FAILED|Failed to CUDA calloc")
_HOST_MEMORY = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough)|Caught \w*MemoryError")
_SHARED_MEMORY = re.compile(r"unable to (mmap|write|allocate shared|resize|open shared)|Bus error")
_OPEN_FILES = re.compile(r"Too many open files|received 0 items of ancdata")
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (is killed by signal: \w+|exited)")
_WRITER = re.compile(r"PytorchStreamWriter failed|unexpected pos \d+ vs|inline_container")
_CONTACT = re.compile(
    r"[Cc]onnection (closed|reset) by peer|Timed out waiting|[Bb]roken pipe|Socket (Timeout|closed)|"
    r"gloo|NCCL|nccl"
)


def is_lost_contact(error: BaseException) -> bool:
    """Whether an error says that another process of the run does not answer any more.

    Its type is a bare RuntimeError with gloo.
    """
    if get_world_size() == 1:
        return False
    if isinstance(error, torch.distributed.DistError):
        return True
    return type(error) is RuntimeError and bool(_CONTACT.search(str(error)))


def _place(error: BaseException, runner: Any) -> str:
    if runner is None:
        return "before training"
    return f"{'in the validation ' if _validating(error) else ''}at iteration {runner.iter}"


def _validating(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "ssod.engine.evaluate" for frame, _ in frames)


def gpu_memory(error: BaseException, work_dir: Path, runner: Any) -> str | None:
    """No memory left on the device."""
    said = str(error)
    if not isinstance(error, torch.cuda.OutOfMemoryError) and not _GPU_MEMORY.search(said):
        return None
    wanted = re.search(r"Tried to allocate ([\d.]+ \w+)", said)
    much = f", which has no {wanted[1]} left" if wanted else ""
    return (
        f"out of GPU memory {_place(error, runner)}{much}: "
        f"{_fewer_images(error, runner)}, --amp, or a smaller scale in the pipelines"
    )


def _fewer_images(error: BaseException, runner: Any) -> str:
    """The option that makes batches smaller, from the config's to half of it."""
    config = getattr(runner, "cfg", None) or {}
    if _validating(error):
        return "set val_dataloader.batch_size=1"
    counts = ((config.get("train_dataloader") or {}).get("sampler") or {}).get("counts")
    if not counts or len(counts) != 2 or max(counts) == 1:
        return "use fewer images per process (--scale-to, such as 8x1+2)"
    world = get_world_size()
    now, half = (
        f"{world}x{labeled}+{unlabeled}" for labeled, unlabeled in (counts, [-(-n // 2) for n in counts])
    )
    return f"use fewer images per process (--scale-to {half} instead of {now})"


def _fewer_workers(runner: Any) -> str:
    loader = (getattr(runner, "cfg", None) or {}).get("train_dataloader") or {}
    workers = loader.get("num_workers", 0)
    if not workers:
        return "use fewer loader workers (train_dataloader.num_workers)"
    return f"use fewer loader workers (train_dataloader.num_workers={workers // 2} instead of {workers})"


def host_memory(error: BaseException, work_dir: Path, runner: Any) -> str | None:
    """No memory left on the host."""
    denied = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if not isinstance(error, MemoryError) and not denied and not _HOST_MEMORY.search(str(error)):
        return None
    images = _fewer_images(error, runner).removeprefix("use ").removeprefix("set ")
    return (
        f"out of host memory {_place(error, runner)}: reserve more (SLURM: --mem), "
        f"{_fewer_workers(runner)}, or {images}"
    )


def shared_memory(error: BaseException, work_dir: Path, runner: Any) -> str | None:
    """No memory left to hand images from worker to trainer in, or no file numbers for it."""
    said = str(error)
    if _OPEN_FILES.search(said) or (isinstance(error, OSError) and error.errno == errno.EMFILE):
        return f"too many open files {_place(error, runner)}: raise `ulimit -n`, or {_fewer_workers(runner)}"
    in_memory = isinstance(error, RuntimeError) and _SHARED_MEMORY.search(said)
    if not in_memory and SHARED_MEMORY not in str(getattr(error, "filename", "")):
        return None
    size = f" ({_mebibytes(SHARED_MEMORY)})" if os.path.isdir(SHARED_MEMORY) else ""
    return (
        f"the loader workers' shared memory {SHARED_MEMORY}{size} is full {_place(error, runner)}: enlarge "
        f"it (docker run --shm-size=8g), or {_fewer_workers(runner)}"
    )


def worker(error: BaseException, work_dir: Path, runner: Any) -> str | None:
    """A loader worker that is no more."""
    found = _WORKER.search(str(error))
    if found is None:
        return None
    how = found[2].replace("is killed", "was killed").replace("exited", "ended unexpectedly")
    return (
        f"loader worker (pid {found[1]}) {how} {_place(error, runner)}: most often the machine ran out of "
        f"memory and killed it (see dmesg); reserve more (SLURM: --mem), or {_fewer_workers(runner)}"
    )


def disk(error: BaseException, work_dir: Path, runner: Any) -> str | None:
    """A file that can't be written: full, read-only, vanished or silent disk."""
    number = _errno(error)
    writer = isinstance(error, RuntimeError) and bool(_WRITER.search(str(error)))
    if number is None and not writer:
        return None
    named = getattr(error, "filename", None) or _written(error)
    if named is None and number not in _NO_SPACE and not writer:
        return None  # a download, say: nothing tells that it is about a disk
    file = named or work_dir
    if writer:
        number = _errno(error.__context__) or (errno.ENOSPC if _free(file)[0] < _LITTLE else None)
    ours = Path(str(file)).absolute().is_relative_to(work_dir.absolute())
    where = _place(error, runner)
    if ours and not work_dir.exists():
        return f"work dir {work_dir} is gone {where}: bring it back (is its disk mounted?)"
    if number in _NO_SPACE or writer:
        free = _mebibytes(file)
        cause = "is full" if number == errno.ENOSPC else "takes no more"
        reason = os.strerror(number) if number else "writing failed"
        return f"the disk {cause} {where}, writing {file} ({reason}; {free}): free space or raise the quota"
    if ours and number in _NO_WRITING:
        return (
            f"work dir {work_dir} can't be written {where}, {file} ({os.strerror(number)}): make it writable"
        )
    if ours and number in _GONE:
        return f"{file} is gone {where}: leave the work dir alone while a run writes to it"
    if number in _NO_DEVICE:
        return f"the disk of {file} does not answer {where} ({os.strerror(number)}): check it"
    return None


def _errno(error: BaseException | None) -> int | None:
    """The number of an OSError, from its text where it comes from a loader worker; None for any other."""
    if not isinstance(error, OSError):
        return None
    said = re.search(r"OSError: \[Errno (\d+)\]|Error: \[Errno (\d+)\]", str(error))
    return error.errno if error.errno or not said else int(said[1] or said[2])


def _written(error: BaseException) -> str | None:
    """The path that torch's writer was given, which its error doesn't say."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "save" and frame.f_globals.get("__name__") == "torch.serialization":
            file = frame.f_locals.get("f")
            return str(getattr(file, "name", file))
    return None


def _free(path: Any) -> tuple[int, int]:
    """The free bytes of a disk, and all of them; of the nearest folder that exists."""
    folder = Path(str(path)).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return usage.free, usage.total


def _mebibytes(path: Any) -> str:
    free, total = (number >> 20 for number in _free(path))
    return f"{free} of {total} MiB free"


def lost_contact(error: BaseException, work_dir: Path, runner: Any) -> str | None:
    """Another process that does not answer."""
    if not is_lost_contact(error):
        return None
    said = " ".join(str(error).split())[:200]
    return (
        f"lost contact with another process of the run {_place(error, runner)} ({said}): its own last line "
        "says why it ended"
    )


Kind = Callable[[BaseException, Path, Any], str | None]
# In this order: a worker that a full shared memory killed is both, and the first says more.
KINDS: tuple[Kind, ...] = (gpu_memory, shared_memory, host_memory, worker, disk, lost_contact)
