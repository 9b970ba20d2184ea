"""mmdet's side: our weights, our thresholds, the kernels it is said to run on, nothing fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from reference import benchmark as reference
from reference import detectors

from ssod import kernels
from ssod.study.benchmark import ours, peers
from ssod.study.benchmark.as_gpu import on_torchvisions_kernels
from ssod.study.benchmark.counting import OperatorCounter
from ssod.study.benchmark.settings import Settings

pytestmark = pytest.mark.usefixtures("registered")


def test_thresholds_are_those_of_our_method() -> None:
    options = dict(floor=0.3, rpn_min_score=0.8, cls_min_score=0.7, box_max_spread=0.05, unsup_weight=2.0)
    method = detectors.method("SoftTeacher", options | dict(num_jitters=4, jitter_fraction=0.1))
    found = peers.thresholds(method)
    assert found["pseudo_label_initial_score_thr"] == 0.3
    assert (found["rpn_pseudo_thr"], found["cls_pseudo_thr"], found["reg_pseudo_thr"]) == (0.8, 0.7, 0.05)
    assert (found["jitter_times"], found["jitter_scale"], found["unsup_weight"]) == (4, 0.1, 2.0)
    assert peers.thresholds(detectors.method("FixMatch", {}))["cls_pseudo_thr"] == 0.9


def test_networks_have_our_weights() -> None:
    config = Config(reference.config())
    model = detectors.semi_detector(dict(type="SoftTeacher"), dict(type="EMATeacher"), exhaustive=False)
    theirs, alone = peers.build_soft_teacher(config, model), peers.build_supervised(config, model)
    for name, value in model.student.state_dict().items():
        assert torch.equal(theirs.student.state_dict()[name], value)
        assert torch.equal(alone.state_dict()[name], value)
    teacher = model.teacher.state_dict()
    assert all(torch.equal(value, teacher[name]) for name, value in theirs.teacher.state_dict().items())
    preprocessor = theirs.data_preprocessor.data_preprocessor
    assert type(preprocessor).__name__ == "DetDataPreprocessor"
    assert preprocessor.mean.flatten().tolist() == [127.0] * 3
    assert preprocessor.pad_size_divisor == 32


@pytest.mark.skipif("kernels.active() == 'mmcv'", reason="mmcv has compiled operations")
def test_mmdets_roialign_is_torchvisions_inside_of_the_block_only() -> None:
    from mmcv.ops import roi_align

    features, rois = torch.rand(1, 4, 16, 16), torch.tensor([[0.0, 1.0, 2.0, 9.0, 11.0]])

    def run() -> tuple[Any, int]:
        with OperatorCounter() as counter:
            found = roi_align(features, rois, (3, 3), 1.0, 2, "avg", True)
        return found, counter.calls["torchvision::roi_align"]

    with on_torchvisions_kernels():
        theirs, calls = run()
    own, none = run()
    assert (calls, none) == (1, 0)
    assert torch.allclose(theirs, own, atol=1e-5)


def test_which_kernels_are_measured() -> None:
    if kernels.active() == "mmcv":
        pytest.skip("mmcv has compiled operations: there is one set")
    for asked, endings in (
        ("torchvision", [""]),
        ("ssod", ["_ssod_kernels"]),
        ("both", ["", "_ssod_kernels"]),
    ):
        settings = Settings("", "mmdet", device="cpu", mmdet_kernels=asked)
        assert [ending for ending, _ in peers._kernels(settings)] == endings
        assert peers.kernels_of_mmdet(settings) == asked


def test_weights_that_would_be_fetched_are_left_out(tmp_path: Path) -> None:
    here = tmp_path / "here.pth"
    here.touch()

    def with_weights(checkpoint: str) -> Any:
        init = dict(type="Pretrained", checkpoint=checkpoint)
        return dict(detector=dict(backbone=dict(type="ResNet", init_cfg=init), necks=[dict(init_cfg=init)]))

    assert ours.at_hand(with_weights(str(here))) == with_weights(str(here))
    found = ours.at_hand(with_weights("torchvision://resnet50"))["detector"]
    assert found == dict(backbone=dict(type="ResNet", init_cfg=None), necks=[dict(init_cfg=None)])
    kaiming = dict(init_cfg=dict(type="Kaiming", layer="Conv2d"))
    assert ours.at_hand(kaiming) == kaiming
