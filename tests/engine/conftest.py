"""A toy to train in no time: a line through noisy points, with teacher, student and a metric."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import Tensor, nn

CONFIG = """
default_scope = "ssod"
model = dict(type="ToyModel")
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="ToyDataset"),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ToyDataset", length=3),
)
val_evaluator = dict(type="ToyMetric")
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9))
param_scheduler = [dict(type="MultiStepLR", by_epoch=False, end=100, milestones=[5], gamma=0.1)]
train_cfg = dict(max_iters=8, val_interval=4)
default_hooks = dict(
    scalars=dict(type="ScalarLog", interval=2), checkpoint=dict(type="Checkpoints", interval=3)
)
"""


class ToyDataset(torch.utils.data.Dataset[Any]):
    """Points of a line; each access adds noise from NumPy's generator, as an augmentation would."""

    metainfo: ClassVar[dict[str, Any]] = {"classes": ("toy",)}

    def __init__(self, length: int = 10) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = float(index) + float(np.random.normal(0, 0.1))
        return {"inputs": torch.tensor([x / 10]), "data_samples": 3 * index / 10}

    def get_data_info(self, index: int) -> dict[str, Any]:
        return {"img_id": index}


class ToyModel(BaseModel):
    """A line; `calls` notes what the engine told it. bad_steps: iterations whose loss is nan."""

    def __init__(self, bad_steps: tuple[int, ...] = (), **options: Any) -> None:
        super().__init__(**options)
        self.student, self.teacher = nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False)
        self.which = ("teacher", "student")
        self.bad_steps = bad_steps
        self.calls: list[Any] = []
        self.step = 0

    def start(self) -> None:
        self.calls.append("start")
        self.teacher.load_state_dict(self.student.state_dict())

    def set_step(self, step: int) -> None:
        self.calls.append(("set", step))
        self.step = step

    def after_step(self, step: int) -> None:
        self.calls.append(("after", step))
        for ours, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            ours.lerp_(theirs.detach(), 0.5)

    def pseudo_labels(self, batch: Any) -> None:
        return None

    def forward(self, inputs: Any, data_samples: Any, mode: str = "tensor") -> Any:
        points = torch.stack(list(inputs))
        truth = torch.tensor(data_samples).reshape(-1, 1)
        loss = (self.student(points) - truth).square().mean()
        if self.step in self.bad_steps:
            loss = loss * float("nan")
        return {"sup_loss_fit": loss, "num_boxes_cls": torch.tensor(2.5)}

    def predict(self, inputs: Any, data_samples: Any, which: str | None = None) -> list[Any]:
        network = self.teacher if which == "teacher" else self.student
        found: Tensor = network(torch.stack(list(inputs)))
        return [{"error": float(e)} for e in found[:, 0] - torch.tensor(data_samples)]


class ToyMetric(BaseMetric):
    """1 / (1 + mean square error), under the name of the box AP; prints as pycocotools does."""

    default_prefix = "coco"

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [sample["error"] for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        print("noise of a metric")
        np.random.random()  # a validation that disturbs the generators
        return {"bbox_mAP": float(1 / (1 + np.square(results).mean())), "bbox_mAP_50": 0.5}


@pytest.fixture(scope="session")
def toys(registered: None) -> None:
    """The toys in the registries."""
    from ssod import registry

    registry.MODELS.register_module(module=ToyModel)
    registry.DATASETS.register_module(module=ToyDataset)
    from mmengine.registry import METRICS

    METRICS.register_module(module=ToyMetric)


@pytest.fixture
def toy_config(toys: None, tmp_path: Path) -> Callable[[str], Path]:
    """Function: a config file for the toy, with lines added."""

    def write(more: str = "") -> Path:
        path = tmp_path / "toy.py"
        path.write_text(CONFIG + more)
        return path

    return write
