"""Reading torch files that may come from anywhere: weights, arrays and plain values, never code.

A pickle can run whatever its author likes while it is read. torch reads with a list of types instead
(`weights_only`), but mmengine 0.10.12 reads a file that needs more than the list without it, after a warning.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from os.path import basename
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from ssod.errors import UserError


def read(path: str | os.PathLike[str], map_location: Any = "cpu", lazily: bool = False) -> Any:
    """The content of a torch file; UserError if it holds more than weights, arrays and plain values.

    lazily: tensors are read from the file when they are used, which torch's older format can't do. What torch
    raises for a broken file comes through.
    """
    try:
        with _harmless_types():
            return torch.load(path, map_location=map_location, weights_only=True, mmap=lazily)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is refused: {_reason(error)}") from None


def install() -> None:
    """Makes mmengine read files in this way, wherever they come from: disk, http or a model zoo."""
    from mmengine.runner import checkpoint

    def read_as_mmengine(file: Any, map_location: Any = None, weights_only: Any = None) -> Any:
        return read(file, map_location)

    def download(url: str, **options: Any) -> Any:
        try:
            with _harmless_types():
                return torch.hub.load_state_dict_from_url(url, **{**options, "weights_only": True})
        except (OSError, HTTPException) as error:  # urllib's errors are OSErrors
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
            raise UserError(
                f"weights {url} can't be fetched ({' '.join(reason.split())}): "
                f"{without_network(place_of(url, options.get('model_dir')))}"
            ) from error

    checkpoint._safe_torch_load = read_as_mmengine
    checkpoint.load_url = download


def place_of(url: str, folder: str | None = None) -> str:
    """Where torch's hub keeps what it has fetched from an address, and looks for it first."""
    return os.path.join(
        folder or os.path.join(torch.hub.get_dir(), "checkpoints"), basename(urlparse(url).path)
    )


def without_network(place: str) -> str:
    """What to do on a machine that can't fetch weights, whose place would be the given one."""
    return (
        f"download it elsewhere to {place}, or give a local file in its place, such as "
        "--cfg-options model.detector.backbone.init_cfg.checkpoint=FILE"
    )


@contextmanager
def _harmless_types() -> Iterator[None]:
    """A block in which files may hold, beside tensors and plain values, arrays and mmengine's log buffers."""
    core = np._core if hasattr(np, "_core") else np.core
    dtypes = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u4", "?")}
    plain: list[Any] = [np.ndarray, np.dtype, slice, HistoryBuffer, *dtypes]
    # A file keeps the name that numpy's module had when it was written.
    named = [
        (getattr(core.multiarray, each), f"numpy.{module}.multiarray.{each}")
        for each in ("_reconstruct", "scalar")
        for module in ("_core", "core")
    ]
    named.append((_statistic, "builtins.getattr"))
    with torch.serialization.safe_globals([*plain, *named]):
        yield


def _statistic(owner: object, name: str) -> Any:
    """The method of a HistoryBuffer, as its pickles ask for it by `getattr`; nothing else."""
    if owner is not HistoryBuffer or name not in ("mean", "max", "min", "current"):
        raise pickle.UnpicklingError(f"it asks for {name} of {owner}")
    return getattr(owner, name)


def _reason(error: Exception) -> str:
    """A few words on what torch's reader objects to, without its advice to trust the file."""
    text = " ".join(str(error).split())
    found = re.search(r"GLOBAL (\S+)", text)
    if found:
        return f"it would call {found[1]}, which is neither a tensor nor a plain value"
    inner = re.search(r"WeightsUnpickler error: (.*?)( Check the documentation|$)", text)
    return f"it is no file of weights ({(inner[1] if inner else text)[:120]})"
