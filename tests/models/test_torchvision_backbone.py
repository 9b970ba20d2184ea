"""TorchvisionBackbone against torchvision's own network, block by block."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from ssod.errors import UserError

INDICES = (3, 6, 13, 17)  # strides 4, 8, 16, 32 of mobilenet_v2


def classifier(seed: int = 0) -> Any:
    """torchvision's mobilenet_v2 with random weights and lively BatchNorm statistics."""
    torch.manual_seed(seed)
    network = torchvision.models.mobilenet_v2(weights=None, width_mult=1.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pth"
    torch.save(classifier().state_dict(), path)
    return path


def build(weights: Path | str | None = None, **changes: Any) -> Any:
    from ssod.models.torchvision_backbone import TorchvisionBackbone

    path = None if weights is None else str(weights)
    options: dict[str, Any] = dict(model="mobilenet_v2", out_indices=INDICES, weights=path)
    return TorchvisionBackbone(**options | changes)


def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_outputs_are_torchvisions_features(registered: None, weights: Path) -> None:
    backbone, network = build(weights).eval(), classifier().eval()
    backbone.init_weights()  # must not draw the weights anew
    for index, output in zip(INDICES, backbone(images()), strict=True):
        assert output.equal(network.features[: index + 1](images()))
    assert [output.shape[-1] for output in backbone(images())] == [24, 12, 6, 3]
    assert len(backbone.features) == 18  # nothing behind the last output is kept


@torch.no_grad()
def test_other_indices_and_other_networks(registered: None) -> None:
    torch.manual_seed(3)
    backbone = build(None, model="mobilenet_v3_small", out_indices=(1, 3)).eval()
    torch.manual_seed(3)
    network = torchvision.models.mobilenet_v3_small(weights=None).eval()
    for index, output in zip((1, 3), backbone(images()), strict=True):
        assert output.equal(network.features[: index + 1](images()))


def test_the_shared_weights_file_fits(registered: None, weights_root: Path) -> None:
    path = weights_root / "mobilenet_v2_imagenet.pth"
    stored = torch.load(path, map_location="cpu", weights_only=True)
    for name, tensor in build(path).features.state_dict().items():
        assert tensor.equal(stored[f"features.{name}"])


def trains(backbone: Any) -> set[int]:
    """The blocks with a parameter that is trained."""
    return {
        index
        for index, block in enumerate(backbone.features)
        if any(parameter.requires_grad for parameter in block.parameters())
    }


@pytest.mark.parametrize("frozen", [0, 4, 18])
def test_frozen_blocks_don_t_train(registered: None, weights: Path, frozen: int) -> None:
    backbone = build(weights, frozen_blocks=frozen, norm_eval=False).train()
    assert trains(backbone) == set(range(frozen, 18))
    assert [block.training for block in backbone.features] == [False] * frozen + [True] * (18 - frozen)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    outputs = backbone(images())
    if frozen < 18:
        sum(output.mean() for output in outputs).backward()
    moved = {
        int(name.split(".")[1])
        for name, tensor in backbone.state_dict().items()
        if not tensor.equal(before[name])
    }
    assert moved == set(range(frozen, 18))  # a frozen block's statistics stand still


@pytest.mark.parametrize("norm_eval", [True, False])
def test_norm_eval_keeps_statistics_and_scales(registered: None, weights: Path, norm_eval: bool) -> None:
    backbone = build(weights, norm_eval=norm_eval).train()
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 51  # of torchvision's 52; the last stands behind block 17
    assert {module.training for module in norms} == {not norm_eval}
    assert {parameter.requires_grad for module in norms for parameter in module.parameters()} == {
        not norm_eval
    }
    before = norms[0].running_mean.clone()
    backbone(images())
    assert norms[0].running_mean.equal(before) == norm_eval
    assert trains(backbone) == set(range(18))  # convolutions train either way


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (
        "missing file",
        dict(weights="nowhere/weights.pth"),
        "no weights file nowhere/weights.pth.*SSOD_WEIGHTS_ROOT",
    ),
    ("a network without `features`", dict(model="resnet18"), "resnet18 has no sequential `features`"),
    ("no such network", dict(model="mobilenet_v9"), "mobilenet_v9"),
    ("a block that is not there", dict(out_indices=(3, 99)), "99"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_options_are_named_in_one_line(registered: None, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(**change)
    assert "\n" not in str(caught.value)
