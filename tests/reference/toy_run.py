"""Trains the toy of tests/engine as tools/train.py would; a step can take time, and end its process.

`python toy_run.py CONFIG --work-dir DIR ...`. TOY_SECONDS: of each step · TOY_KILL "RANK:ITERATION": the
process of that rank kills itself there, in its first life · TOY_PIDS: a folder for a file `<pid>` each.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


def load(path: Path) -> Any:
    """The file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """The exit code of tools/train.py."""
    from ssod import registry

    registry.register_all_modules()
    from mmengine.registry import METRICS

    toys = load(PROJECT / "tests" / "engine" / "conftest.py")
    registry.MODELS.register_module(module=toys.ToyModel)
    registry.DATASETS.register_module(module=toys.ToyDataset)
    METRICS.register_module(module=toys.ToyMetric)
    if os.environ.get("TOY_PIDS"):
        Path(os.environ["TOY_PIDS"], str(os.getpid())).touch()
    told = toys.ToyModel.set_step
    rank, _, iteration = os.environ.get("TOY_KILL", ":").partition(":")

    def set_step(model: Any, step: int) -> None:
        told(model, step)
        time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
        first_life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if first_life and (rank, iteration) == (os.environ.get("RANK"), str(step)):
            os.kill(os.getpid(), signal.SIGKILL)

    toys.ToyModel.set_step = set_step
    return int(load(PROJECT / "tools" / "train.py").main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
