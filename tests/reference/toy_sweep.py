"""The toy of tests/engine for runs in other processes: a config that imports this module can name it.

TOY_SECONDS: how long each step takes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from mmengine.registry import METRICS
from reference.toy_run import PROJECT, load

from ssod.registry import DATASETS, MODELS

TOYS = load(PROJECT / "tests" / "engine" / "conftest.py")


class SlowToyModel(TOYS.ToyModel):  # type: ignore[misc]
    """The toy, a step of which takes its time."""

    def set_step(self, step: int) -> None:
        super().set_step(step)
        time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
        if self.breaks and step == self.breaks:
            raise RuntimeError("the toy breaks")

    def __init__(self, breaks: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.breaks = breaks


for registry, kind in ((MODELS, SlowToyModel), (DATASETS, TOYS.ToyDataset), (METRICS, TOYS.ToyMetric)):
    if kind.__name__ not in registry.module_dict:
        registry.register_module(module=kind)


def write_sweep(folder: Path, more: str = "", config: str = "") -> Path:
    """A sweep file of toy runs: `axes = dict(method=["toy"], rate=[0.1, 0.2])`, and lines added."""
    text = TOYS.CONFIG.replace('"ToyModel"', '"SlowToyModel"') + config
    (folder / "toy.py").write_text(text + 'custom_imports = dict(imports=["reference.toy_sweep"])\n')
    path = folder / "toys.py"
    path.write_text(
        'axes = dict(method=["toy"], rate=[0.1, 0.2])\nconfigs = "{method}.py"\n'
        'options = dict(rate="optim_wrapper.optimizer.lr")\n' + more
    )
    return path
