"""Trains the toy of tests/engine as tools/train.py would; a step can take time, and end its process.

`python toy_run.py CONFIG --work-dir DIR ...`. TOY_SECONDS: of each step · TOY_KILL "RANK:ITERATION": the
process of that rank kills itself there, in its first life · TOY_PIDS: a folder for a file `<pid>` each.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for torchrun, which runs this file alone

from reference.modules import PROJECT, load


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
