"""Putting the kernels behind mmcv, and mmdet's imports without their noise."""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from . import attention, deformable, focal, pooling, report, suppression

EXTENSION = "mmcv._ext"
_FAMILIES = (suppression, pooling, focal, deformable, attention, report)


# What the base packages say at import that no user of ours can act on: OneDL is a vendor's data
# platform, faster_coco_eval an optional metric, the moved class is used from its old place by mmdet
# itself, and the escape sequences stand in mmdet's docstrings, which Python reports once, when it
# first compiles the files.
_PRINTED_NOISE = frozenset({"Could not import OneDL. Skipping OneDL datasets."})
_WARNED_NOISE = (
    "faster_coco_eval is not installed",
    "``MultiScaleDeformableAttention`` has been moved",
    "Fail to import ``MultiScaleDeformableAttention``",
    "invalid escape sequence",
)
# The packages whose import makes that noise; mmdet.models is here for its escape sequences.
_NOISY_PACKAGES = ("mmdet.datasets", "mmdet.evaluation", "mmdet.models")

# The names that modules fill with a failing stand-in, or leave out, if imported before `install()`.
_EARLY_IMPORTS = (
    ("mmcv.cnn.bricks.transformer", "MultiScaleDeformableAttention"),
    ("mmdet.structures.mask.structures", "roi_align"),
    ("mmdet.evaluation.metrics.dump_odvg_results", "batched_nms"),
)


def install() -> bool:
    """True if this call put torchvision's kernels behind mmcv, False if nothing was to be done.

    Afterwards mmdet's packages are imported, without their noise, so that it costs a few seconds
    the first time. A compiled extension that fails to load (built for another torch) is replaced
    like a missing one, with a RuntimeWarning that says why it failed.
    """
    if active() == "torchvision":
        return False
    placed = not _compiled_extension_loads()
    with quiet_imports():
        if placed:
            _place_substitute()
        for package in _NOISY_PACKAGES:
            importlib.import_module(package)
    return placed


def active() -> str:
    """Whose kernels mmcv's operations run on: "mmcv" (compiled), "torchvision" (ours) or "none"."""
    module = sys.modules.get(EXTENSION)
    if isinstance(module, _Substitute):
        return "torchvision"
    return "mmcv" if module is not None or _compiled_extension_spec() is not None else "none"


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """A context in which mmcv's and mmdet's known import noise is dropped and nothing else is.

    Only the messages listed above vanish; every other print, warning, log line or error passes. It
    also ends, for this process and its children, albumentations' look for newer versions on PyPI.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    # mmdet's lines come through mmengine's print_log, which prints when it is given no logger. A
    # name in its module shadows the builtin for it alone: numba, imported on the way, looks for
    # the true `print`, and loggers made on the way would hold on to an exchanged sys.stdout.
    logger: Any = importlib.import_module("mmengine.logging.logger")
    real_print, real_show = getattr(logger, "print", print), warnings.showwarning

    def print_unless_noise(message: Any) -> None:
        if message not in _PRINTED_NOISE:
            real_print(message)

    def show_unless_noise(message: Warning | str, *place: Any, **options: Any) -> None:
        if not any(noise in str(message) for noise in _WARNED_NOISE):
            real_show(message, *place, **options)

    # Not warnings.catch_warnings: on its exit the filters that imported packages set would be lost.
    logger.print, warnings.showwarning = print_unless_noise, show_unless_noise
    try:
        yield
    finally:
        logger.print, warnings.showwarning = real_print, real_show


class _Substitute(types.ModuleType):
    """The stand-in for `mmcv._ext`; operations it lacks fail when called, not when looked up."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        def unavailable(*_: Any, **__: Any) -> Any:
            raise NotImplementedError(
                f"mmcv's operation {name!r} has no counterpart among torchvision's kernels; "
                "it needs a compiled mmcv (build mmcv from source with MMCV_WITH_OPS=1)"
            )

        return unavailable


class _SubstituteLoader(importlib.abc.Loader):
    """The stand-in's maker: by a spec with a loader mmcv and mmengine recognise operations."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Substitute(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        for family in _FAMILIES:
            for operation in family.OPERATIONS:
                setattr(module, operation.__name__, operation)


def _place_substitute() -> None:
    """Nothing; `mmcv._ext` is ours from here on, also for what was imported without it."""
    spec = importlib.machinery.ModuleSpec(EXTENSION, _SubstituteLoader())
    module = importlib.util.module_from_spec(spec)
    _SubstituteLoader().exec_module(module)
    sys.modules[EXTENSION] = module
    operations = importlib.import_module("mmcv.ops")
    for early, name in _EARLY_IMPORTS:
        if early in sys.modules:
            setattr(sys.modules[early], name, getattr(operations, name))


def _compiled_extension_spec() -> importlib.machinery.ModuleSpec | None:
    """Where mmcv's compiled extension lies, or None; found without importing mmcv."""
    package = importlib.util.find_spec("mmcv")
    locations = package.submodule_search_locations if package is not None else None
    return importlib.machinery.PathFinder.find_spec(EXTENSION, locations) if locations else None


def _compiled_extension_loads() -> bool:
    """True if mmcv's own extension is imported or can be; warns of one that is there and broken."""
    if EXTENSION in sys.modules:
        return True
    spec = _compiled_extension_spec()
    if spec is None:
        return False
    try:
        importlib.import_module("torch")  # the extension links against torch's libraries
        importlib.import_module(EXTENSION)
    except ImportError as error:
        warnings.warn(
            f"{spec.origin} does not load ({error}); torchvision's kernels take its place",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True
