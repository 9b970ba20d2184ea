"""Checks of the machine against the config: packages, device, memory, disk. One function for each finding."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ssod.data.checkup.findings import Finding, fact, fails, hurts, note
from ssod.engine.checkup.machine import SHARED_MEMORY, Machine
from ssod.engine.checkup.setup import Setup, walk
from ssod.engine.records.result import check_free, versions
from ssod.errors import UserError

PREFETCHED = 2  # batches that each loader worker holds ready
LARGEST_SIZE = (1333, 800)  # of an image whose pipeline names no scale
CHECKPOINTS_NEED = 2 * 2**30  # bytes that a work dir should have room for: three checkpoints
LEAST_DISK = 2**28
LONG_ON_CPU = 20_000  # iterations
# Distributions that bring the same modules: which file is imported is decided by the order of installation.
SAME_MODULES = (  # the one we stand on first
    ("onedl-mmdetection", "mmdet"),
    ("onedl-mmengine", "mmengine", "mmengine-lite"),
    ("onedl-mmcv", "mmcv", "mmcv-full", "mmcv-lite"),
    ("albumentations", "albumentationsx"),
)


def about_versions(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """What is installed of all that can change a result."""
    names = ("numpy", "albumentations", "pycocotools", "opencv-python", "opencv-python-headless", "pillow")
    more = {name: machine.installed[name] for name in names if name in machine.installed}
    ours = [name for names in SAME_MODULES[:3] for name in names if name in machine.installed]
    found = {**versions(), **more, "distributions": ", ".join(ours)}
    text = ", ".join(f"{name} {version}" for name, version in found.items() if name != "distributions")
    yield fact("versions", "environment", f"{text}; from {found['distributions']}", **found)


def about_device(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """What would train."""
    cuda = torch.version.cuda
    gpus = [f"{name} ({memory / 2**30:.0f} GiB)" for name, memory in machine.gpus]
    shm = "none" if machine.shm is None else f"{machine.shm / 2**30:.1f} GiB"
    yield fact(
        "device",
        "environment",
        f"{', '.join(gpus) or f'cpu ({platform.machine()})'}, {machine.cores} cores, shared memory {shm} "
        f"free, torch built for {f'CUDA {cuda}' if cuda else 'the CPU'}",
        gpus=[list(each) for each in machine.gpus],
        cores=machine.cores,
        shared_memory=machine.shm,
        cuda=cuda,
    )


def about_kernels(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """Whose NMS, RoIAlign and the rest are in use."""
    text = {
        "mmcv": "mmcv's compiled operations",
        "torchvision": "torchvision's kernels in the place of mmcv's, which is not compiled",
    }.get(machine.kernels, "none")
    yield fact("kernels", "environment", text, kernels=machine.kernels)


def conflicting_installs(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """Two distributions of the same modules."""
    for names in SAME_MODULES:
        found = [f"{name} {machine.installed[name]}" for name in names if name in machine.installed]
        if len(found) > 1:
            yield fails(
                "conflicting-installs",
                "environment",
                f"{' and '.join(found)} write the same files: modules of both are mixed",
                f"pip uninstall all of them, then install {names[0]} again",
            )


def unused_gpu(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """A GPU that torch can't use."""
    if machine.has_driver and not machine.gpus:
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built for the CPU"
        mend = "install the torch of the driver that nvidia-smi shows, or check CUDA_VISIBLE_DEVICES"
        yield hurts("gpu-not-usable", "environment", f"there is a GPU, and torch {built}", mend)


def long_on_cpu(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """A schedule for GPUs on a CPU."""
    if not machine.gpus and setup.max_iters >= LONG_ON_CPU:
        what = f"{setup.max_iters:,} iterations without a GPU"
        yield note("long-without-gpu", "train_cfg.max_iters", what, "train on a GPU, or a smaller config")


def float16_without_gpu(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """float16, which the CPU does not have."""
    if (setup.config.get("optim_wrapper") or {}).get("precision") == "float16" and not machine.gpus:
        mend = "train on a GPU, or set precision='float32' or 'bfloat16'"
        yield fails("float16-without-gpu", "optim_wrapper.precision", "'float16' needs a GPU", mend)


def too_many_workers(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """More loader workers than cores."""
    workers = int((setup.config.get("train_dataloader") or {}).get("num_workers") or 0)
    local = min(setup.world_size, max(len(machine.gpus), 1))
    if workers * local > machine.cores:
        yield note(
            "more-workers-than-cores",
            "train_dataloader.num_workers",
            f"{workers} workers for {local} processes on {machine.cores} cores",
            f"set num_workers={max(machine.cores // local, 1)} or so",
        )


def small_shared_memory(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """Shared memory too small for the batches that loader workers hold ready."""
    loader = setup.config.get("train_dataloader") or {}
    workers = int(loader.get("num_workers") or 0)
    height, width = _largest_size(loader)
    views = 2 if setup.part("unlabeled") is not None else 1
    batch = int(loader.get("batch_size") or 0) * views * height * width * 3
    local = min(setup.world_size, max(len(machine.gpus), 1))
    need = workers * (int(loader.get("prefetch_factor") or PREFETCHED) + 1) * batch * local
    if machine.shm is not None and machine.shm < need:
        yield fails(
            "shared-memory-small",
            str(SHARED_MEMORY),
            f"{machine.shm / 2**20:,.0f} MiB free, {workers} workers may hold {need / 2**20:,.0f} MiB: they "
            "die of a 'bus error'",
            "start the container with --shm-size=8g or --ipc=host, or lower num_workers",
            need=need,
            free=machine.shm,
        )


def _largest_size(node: Any) -> tuple[int, int]:
    """The largest size that a pipeline below a node resizes to."""
    sizes: list[tuple[int, int]] = []
    for _, step in walk(node, "loader"):
        for name in ("scale", "scales"):
            given = step.get(name)
            if "Resize" in str(step.get("type")) and isinstance(given, (list, tuple)) and given:
                listed = [given] if isinstance(given[0], (int, float)) else given
                sizes += [(int(each[0]), int(each[1])) for each in listed]
    return max(sizes, key=lambda size: size[0] * size[1], default=LARGEST_SIZE)


def little_disk(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """A disk that checkpoints would fill."""
    if machine.disk is not None and machine.disk < CHECKPOINTS_NEED:
        say = fails if machine.disk < LEAST_DISK else hurts
        what = f"{machine.disk / 2**20:,.0f} MiB free, where three checkpoints are written"
        yield say("disk-full", str(setup.work_dir), what, "make room, or name another --work-dir")


def work_dir_writable(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """A work dir that can't be written to."""
    if not machine.writable:
        mend = "name another --work-dir, or change its permissions"
        yield fails("work-dir-not-writable", str(setup.work_dir), "no permission to write", mend)


def work_dir_taken(setup: Setup, machine: Machine) -> Iterator[Finding]:
    """A work dir with another run's files."""
    try:
        check_free(setup.work_dir, resume=False)
    except UserError as error:
        yield fails("work-dir-taken", str(setup.work_dir), error.one_line, "do one of the two")


CHECKS: tuple[Callable[[Setup, Machine], Iterator[Finding]], ...] = (
    about_versions,
    about_device,
    about_kernels,
    conflicting_installs,
    unused_gpu,
    long_on_cpu,
    float16_without_gpu,
    too_many_workers,
    small_shared_memory,
    little_disk,
    work_dir_writable,
    work_dir_taken,
)
