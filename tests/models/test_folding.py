"""Folded BatchNorm against itself: outputs, gradients, the average's own weights, checkpoints' keys."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from reference import detectors
from torch import nn

from ssod.models.folding import fold_norms, unfold_norms

SOFT = dict(type="SoftTeacher", floor=0.3, rpn_min_score=0.4, cls_min_score=0.4, box_max_spread=0.5)
IMAGES = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def resnet(**options: Any) -> nn.Module:
    """A ResNet of mmdet with statistics and weights that are not trivial."""
    from mmdet.registry import MODELS

    default = dict(type="ResNet", depth=50, base_channels=4, stem_channels=4, norm_eval=True, num_stages=2)
    settings = default | dict(out_indices=(0, 1), strides=(1, 2), dilations=(1, 1)) | options
    return lively(MODELS.build(settings))


def lively(network: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    network.double().train()
    return network


def mobilenet() -> nn.Module:
    from ssod.models.torchvision_backbone import TorchvisionBackbone

    return lively(TorchvisionBackbone("mobilenet_v2", (1, 3)))


NETWORKS = {
    "frozen": (lambda: resnet(norm_cfg=dict(type="BN", requires_grad=False), style="caffe"), 24),
    "trainable scale": (lambda: resnet(norm_cfg=dict(type="BN", requires_grad=True)), 24),
    "basic blocks": (lambda: resnet(depth=18, frozen_stages=1), 10),
    "deep stem": (lambda: resnet(deep_stem=True, avg_down=True), 26),
    "torchvision": (mobilenet, 9),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_norm(registered: None, name: str) -> None:
    """Outputs and every gradient, in float64; and all norms are found that there are."""
    plain = NETWORKS[name][0]()
    folded = copy.deepcopy(plain)
    assert fold_norms(folded) == NETWORKS[name][1]
    assert NETWORKS[name][1] == sum(isinstance(each, nn.BatchNorm2d) for each in plain.modules())
    for network in (plain, folded):
        sum(each.square().mean() for each in network(IMAGES)).backward()
    for ours, theirs in zip(folded(IMAGES), plain(IMAGES), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(folded.parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-10)


def test_saves_activations(registered: None) -> None:
    """What autograd keeps for the backward: less than three fifths."""

    def kept(network: nn.Module) -> int:
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = network(IMAGES.repeat(1, 1, 4, 4))
        assert outputs
        return sum(storages.values())

    plain = NETWORKS["frozen"][0]()
    folded = copy.deepcopy(plain)
    fold_norms(folded)
    assert kept(folded) < 0.6 * kept(plain)


def test_norm_with_batch_statistics_stays(registered: None) -> None:
    """In training mode nothing is folded, in eval all; outputs and running statistics are the norm's own."""
    plain = resnet(norm_eval=False)
    folded = copy.deepcopy(plain)
    fold_norms(folded)
    for ours, theirs in zip(folded(IMAGES), plain(IMAGES), strict=True):
        assert ours.equal(theirs)
    for ours, theirs in zip(folded.buffers(), plain.buffers(), strict=True):
        assert ours.equal(theirs)
    for ours, theirs in zip((folded.eval() or folded)(IMAGES), (plain.eval() or plain)(IMAGES), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        assert not ours.equal(theirs)  # it was folded


def test_follows_its_tensors(registered: None) -> None:
    """Weights and statistics that changed since the last call count; a copy is folded by its own."""
    plain, folded = resnet(), resnet()
    fold_norms(folded)
    before = folded(IMAGES)
    twin = copy.deepcopy(folded)
    with torch.no_grad():
        for ours, theirs in zip(folded.state_dict().values(), plain.state_dict().values(), strict=True):
            if ours.is_floating_point():
                theirs.mul_(1.1)
                ours.copy_(theirs)
    for ours, theirs in zip(folded(IMAGES), plain(IMAGES), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(twin(IMAGES), before, strict=True):
        assert ours.equal(theirs)


def test_a_bias_learns_beside_a_weight_that_does_not(registered: None) -> None:
    plain = resnet()
    folded = copy.deepcopy(plain)
    fold_norms(folded)
    gradients = []
    for network in (plain, folded):
        norms = [each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.weight.requires_grad_(False)
        sum(each.square().sum() for each in network(IMAGES)).backward()
        gradients.append([norm.bias.grad for norm in norms if norm.bias.requires_grad])
    assert gradients[0] and all(each is not None for each in gradients[1])
    for ours, theirs in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_checkpointed_blocks_and_a_failed_call(registered: None) -> None:
    """Gradient checkpointing runs blocks again outside of the call; an error leaves nothing folded."""
    plain = resnet(with_cp=True, norm_cfg=dict(type="BN", requires_grad=False))
    folded = copy.deepcopy(plain)
    fold_norms(folded)
    with pytest.raises(RuntimeError):
        folded(IMAGES[:, :1])
    assert all(getattr(module, "folded", None) is None for module in folded.modules())
    for network in (plain, folded):
        sum(each.square().mean() for each in network(IMAGES)).backward()
    for ours, theirs in zip(folded.parameters(), plain.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-10)


def test_what_is_left_alone(registered: None) -> None:
    """A biased convolution, a norm without statistics, one that is hooked, or that something else reads."""
    from mmcv.cnn import ConvModule

    class Both(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self[1](self[0](images)) + self[0](images)

    biased = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    unseen = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, track_running_stats=False))
    hooked = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    hooked[0].register_forward_hook(lambda *_: None)
    first = ConvModule(3, 3, 1, norm_cfg=dict(type="BN"), order=("norm", "conv", "act"))
    shared = Both(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    for module in (biased, unseen, hooked, first, shared):
        assert fold_norms(module) == 0
    assert fold_norms(ConvModule(3, 4, 1, norm_cfg=dict(type="BN"))) == 1


def test_a_shared_convolution_stays(registered: None) -> None:
    """Heads of some detectors share convolutions between levels, each with a norm of its own."""
    from mmcv.cnn import ConvModule

    torch.manual_seed(0)
    levels = [ConvModule(3, 4, 1, norm_cfg=dict(type="BN")) for _ in range(3)]
    for level in levels:
        level.conv = levels[0].conv
    plain = lively(nn.ModuleList(levels)).eval()
    shared = copy.deepcopy(plain)
    assert fold_norms(*shared) == 0
    for ours, theirs in zip(shared, plain, strict=True):
        assert ours(IMAGES).equal(theirs(IMAGES))


def test_norms_can_be_exchanged(registered: None) -> None:
    """As `sync_bn` has it; a norm that replaces a folded one would normalise a second time."""
    plain = resnet(norm_cfg=dict(type="BN", requires_grad=False))
    folded = copy.deepcopy(plain)
    fold_norms(folded)
    folded(IMAGES)
    unfold_norms(folded)
    for ours, theirs in zip(folded(IMAGES), plain(IMAGES), strict=True):
        assert ours.equal(theirs)
    assert not any({"forward", "folded"} & set(vars(each)) for each in folded.modules())


def test_a_pickled_network_folds(registered: None) -> None:
    folded = resnet()
    fold_norms(folded)
    again = pickle.loads(pickle.dumps(folded))
    for ours, theirs in zip(again(IMAGES), folded(IMAGES), strict=True):
        assert ours.equal(theirs)


def test_detector_folds_and_keeps_its_keys(registered: None) -> None:
    """A whole step of Soft Teacher: the same losses and checkpoint keys with and without."""
    plain, folded = (
        detectors.semi_detector(SOFT, dict(type="EMATeacher"), model=dict(fold_norms=fold))
        for fold in (False, True)
    )
    assert list(plain.state_dict()) == list(folded.state_dict())
    assert not any("folded" in vars(each) for each in plain.modules())
    losses = []
    for model in (plain, folded):
        torch.manual_seed(1)
        losses.append(model.loss(detectors.semi_batch()))
    for key, value in losses[0].items():
        torch.testing.assert_close(value, losses[1][key], rtol=1e-4, atol=1e-5)
    losses[1]["sup_loss_cls"].backward()
    copy.deepcopy(folded).load_state_dict(plain.state_dict())
