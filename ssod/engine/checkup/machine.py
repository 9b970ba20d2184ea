"""The machine that would train: what is installed, which devices, how much room."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ssod import kernels
from ssod.engine.loading import usable_cores

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Machine:
    """installed: distributions and versions · gpus: names and bytes · shm, disk: free bytes, None where there
    is no such place · has_driver: there is a GPU that torch may or may not see.
    """

    installed: Mapping[str, str]
    gpus: tuple[tuple[str, int], ...]
    has_driver: bool
    cores: int
    shm: int | None
    disk: int | None
    kernels: str
    writable: bool

    @staticmethod
    def here(work_dir: Path) -> Machine:
        """This machine."""
        parent = _existing(work_dir)
        devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        properties = [torch.cuda.get_device_properties(index) for index in devices]
        return Machine(
            installed=_distributions(),
            gpus=tuple((str(each.name), int(each.total_memory)) for each in properties),
            has_driver=Path("/dev/nvidia0").exists(),
            cores=usable_cores(),
            shm=_free(SHARED_MEMORY),
            disk=_free(parent),
            kernels=kernels.active(),
            writable=os.access(parent, os.W_OK | os.X_OK),
        )


def _existing(path: Path) -> Path:
    """The nearest folder above a path that there is."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _free(path: Path) -> int | None:
    return shutil.disk_usage(path).free if path.exists() else None


def _distributions() -> dict[str, str]:
    found = {}
    for each in importlib.metadata.distributions():
        name = each.metadata["Name"]
        if name:
            found[str(name).lower().replace("_", "-")] = str(each.version)
    return found
