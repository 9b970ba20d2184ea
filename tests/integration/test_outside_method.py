"""A method from outside the package trains through tools/train.py: a config that imports it is all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

PROJECT = Path(__file__).resolve().parents[2]
CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(imports=["reference.outside_method"])
model = dict(method=dict(_delete_=True, type="OutsideMethod", unsup_weight=2.0), teacher=None)
train_cfg = dict(max_iters=3, val_interval=3)
_quick = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=2, sampler=dict(counts=(1, 1)), **_quick)
val_dataloader = dict(dataset=dict(indices=4), **_quick)
default_hooks = dict(scalars=dict(interval=1))
"""


def test_a_method_from_outside_trains_by_its_config_alone(tmp_path: Path) -> None:
    config, out = tmp_path / "outside.py", tmp_path / "run"
    config.write_text(CONFIG.format(base=str(PROJECT / "configs/soft_teacher/shapes.py")))
    paths = [str(PROJECT / "tests"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(PROJECT / "tools/train.py"), str(config), "--work-dir", str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    assert (result["status"], result["method"], result["iterations"]) == ("done", "OutsideMethod", 3)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["unsup_loss_scale"] > 0 for line in lines if line["kind"] == "train"] == [True] * 3
    saved = torch.load(out / "checkpoints/last.pth", map_location="cpu", weights_only=False)["state_dict"]
    assert saved["method.steps"] == 3
