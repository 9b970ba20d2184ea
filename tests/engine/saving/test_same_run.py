"""What `--resume` refuses to go on with, what it says of other options, and what it takes no notice of."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from ssod.engine.saving.same_run import check_same_run
from ssod.engine.train import train
from ssod.errors import UserError

RUN: dict[str, Any] = dict(
    model=dict(
        type="SemiDetector",
        detector=dict(
            type="FasterRCNN",
            backbone=dict(depth=18, weights="/here/r18.pth"),
            test_cfg=dict(rcnn=dict(score_thr=0.05)),
        ),
        method=dict(type="SoftTeacher", cls_min_score=0.9, floor=float("-inf")),
        teacher=dict(decay=0.999),
    ),
    train_dataloader=dict(
        num_workers=2,
        batch_size=5,
        sampler=dict(counts=(1, 4)),
        dataset=dict(
            type="ConcatDataset",
            datasets=[
                dict(type="LabeledCoco", data_root="/here", ann_file="some/labeled.json", only_ids=(1, 2)),
                dict(type="UnlabeledImages", data_root="/here", images=["/here/unlabeled/", "more.txt"]),
            ],
        ),
    ),
    optim_wrapper=dict(type="GuardedOptimWrapper", optimizer=dict(type="SGD", lr=0.1, foreach=True)),
    param_scheduler=[dict(type="MultiStepLR", milestones=[5])],
    train_cfg=dict(max_iters=8),
    default_hooks=dict(checkpoint=dict(type="Checkpoints", interval=2)),
    written_for=dict(world_size=1),
)


def resumed(folder: Path, changes: dict[str, Any]) -> str:
    """What is said where the run above is resumed with changes."""
    Config(copy.deepcopy(RUN)).dump(folder / "config.py")
    now = Config(copy.deepcopy(RUN))
    now.merge_from_dict(changes)
    return check_same_run(folder, now)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.method.type", "FixMatch", "model.method.type is SoftTeacher there and FixMatch in this"),
        ("model.method", None, "model.method.type is SoftTeacher there and (left out) in this config"),
        ("model.detector.type", "FCOS", "model.detector.type is FasterRCNN there and FCOS in this config"),
        ("model.detector.backbone.depth", 50, "model.detector.backbone.depth is 18 there and 50 in this"),
        (
            "optim_wrapper.optimizer.type",
            "AdamW",
            "optim_wrapper.optimizer.type is SGD there and AdamW in this",
        ),
        ("train_dataloader.dataset.datasets.0.ann_file", "some/val.json", "labeled.json there and val.json"),
        ("train_dataloader.dataset.datasets.0.only_ids", [1, 3], "only_ids is [1, 2] there and [1, 3] in"),
        ("train_dataloader.dataset.datasets.0.except_ids", [3], "except_ids is (left out) there and [3] in"),
        ("train_dataloader.dataset.datasets.1.images", ["a"], "is ['unlabeled', 'more.txt'] there and ['a']"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, key: str, value: Any, said: str) -> None:
    with pytest.raises(UserError, match=r"another run.*choose another --work-dir") as caught:
        resumed(tmp_path, {key: value})
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.method.cls_min_score", 0.7, "model.method.cls_min_score 0.9 -> 0.7"),
        ("model.method.num_jitters", 10, "model.method.num_jitters (left out) -> 10"),
        ("model.detector.neck", {"type": "FPN"}, "model.detector.neck (left out) -> {'type': 'FPN'}"),
        ("model.detector.test_cfg.rcnn.score_thr", 0.01, "test_cfg.rcnn.score_thr 0.05 -> 0.01"),
        ("optim_wrapper.optimizer.lr", 0.2, "optim_wrapper.optimizer.lr 0.1 -> 0.2"),
        ("param_scheduler.0.milestones", [7], "param_scheduler.0.milestones [5] -> [7]"),
        ("param_scheduler", [], "param_scheduler [{'milestones': [5], 'type': 'MultiStepLR'}] -> []"),
        # On a node without a network, as the error there says; the checkpoint has the weights anyway.
        ("model.detector.backbone.weights", "../w/other.pth", "weights /here/r18.pth -> ../w/other.pth"),
    ],
)
def test_other_options_are_said(tmp_path: Path, key: str, value: Any, said: str) -> None:
    line = resumed(tmp_path, {key: value})
    assert line.startswith("resumes with other options: ") and line.endswith(said) and "\n" not in line


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train_cfg.max_iters": 99, "train_dataloader.num_workers": 0, "default_hooks.checkpoint": None},
        {"model.method.type": "ssod.SoftTeacher", "model.method.num_jitters": None},
        {
            "train_dataloader.dataset.datasets.0.data_root": "/there",
            "train_dataloader.dataset.datasets.0.ann_file": "/there/some/labeled.json",
            "train_dataloader.dataset.datasets.0.only_ids": [1, 2],
            "train_dataloader.dataset.datasets.1.images": ["/there/unlabeled", "/there/more.txt"],
            "model.detector.backbone.weights": "weights/r18.pth",
        },
        {"optim_wrapper.optimizer": {"type": "SGD", "lr": 0.1, "fused": True}},
        # --scale-to 2x1+4: twice the images, so twice the rate and an average of half the steps
        {
            "written_for.world_size": 2,
            "optim_wrapper.optimizer.lr": 0.2,
            "model.teacher.decay": 0.998001,
            "param_scheduler.0.milestones": [3],
            "train_cfg.max_iters": 4,
        },
    ],
    ids=["nothing", "length and workers", "scope and None", "another machine", "a GPU", "another size"],
)
def test_what_does_not_matter_is_not_said(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert resumed(tmp_path, changes) == ""


@pytest.mark.parametrize(
    "text", [None, "", "a = 1\n", "model = dict(", "import os\nmodel = dict(type=os.sep)\n", "a = b\n"]
)
def test_a_config_that_cannot_be_read_refuses_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.py").write_text(text)
    assert check_same_run(tmp_path, Config(copy.deepcopy(RUN))) == ""


def test_a_run_of_another_method_is_no_finished_one(
    toy_config: Callable[[str], Path], tmp_path: Path, capfd: Any
) -> None:
    """Refused before "nothing to do" is said, and before anything is written."""
    out = tmp_path / "run"
    train(toy_config(""), work_dir=out)
    dumped = (out / "config.py").read_text()
    (out / "config.py").write_text(dumped.replace("type='ToyModel'", "method=dict(type='SoftTeacher')"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"holds another run: model.method.type is SoftTeacher there"):
        train(toy_config(""), work_dir=out, resume=True)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    (out / "config.py").write_text(dumped)
    capfd.readouterr()
    changed = toy_config("model.update(bad_steps=(99,))\n")
    assert train(changed, work_dir=out, resume=True, options={"train_cfg.max_iters": 9})["iterations"] == 9
    assert "resumes with other options: model.bad_steps (left out) -> (99,)\n" in capfd.readouterr().out
