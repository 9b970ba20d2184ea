"""The toy of tests/engine for runs in other processes: a config that imports this module can name it.

TOY_SECONDS: how long each step takes.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from mmengine.registry import METRICS
from reference.modules import PROJECT, load

from ssod.registry import DATASETS, MODELS

TOYS = load(PROJECT / "tests" / "engine" / "conftest.py")


class SlowToyModel(TOYS.ToyModel):  # type: ignore[misc]
    """The toy, whose steps take time; breaks, signals: the step before which it fails, or stops itself."""

    def __init__(self, breaks: int = -1, signals: int = -1, **options: Any) -> None:
        super().__init__(**options)
        self.breaks, self.signals = breaks, signals

    def set_step(self, step: int) -> None:
        super().set_step(step)
        time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
        if step == self.signals:
            os.kill(os.getpid(), signal.SIGTERM)
        if step == self.breaks:
            raise RuntimeError("the toy breaks")


# Names of their own: the tests of the engine register the same classes.
for registry, kind in ((MODELS, SlowToyModel), (DATASETS, TOYS.ToyDataset), (METRICS, TOYS.ToyMetric)):
    registry.register_module(name=f"Sweep{kind.__name__}", module=kind)


def write_sweep(folder: Path, more: str = "", config: str = "") -> Path:
    """A sweep file of toy runs: `axes = dict(method=["toy"], rate=[0.1, 0.2])`, and lines added."""
    text = TOYS.CONFIG.replace('"ToyModel"', '"SweepSlowToyModel"').replace('"Toy', '"SweepToy') + config
    (folder / "toy.py").write_text(text + 'custom_imports = dict(imports=["reference.toy_sweep"])\n')
    path = folder / "toys.py"
    path.write_text(
        'axes = dict(method=["toy"], rate=[0.1, 0.2])\nconfigs = "{method}.py"\n'
        'options = dict(rate="optim_wrapper.optimizer.lr")\n' + more
    )
    return path
