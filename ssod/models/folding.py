"""BatchNorm that keeps its statistics, folded into the convolution before it.

Such a norm is a fixed scale and shift per channel: conv(x, w) · s + b = conv(x, w · s) + b. Folded, it costs
a product of the size of the weights where it took two passes over the activations, forward and backward, and
kept one of them in memory. Scale and shift are computed anew for every forward pass from the norm's own
tensors, so checkpoints, averages and optimizers see the modules they know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Pair(NamedTuple):
    """A convolution, and the BatchNorm that alone reads its output."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d


def fold_norms(*parts: nn.Module) -> int:
    """How many pairs below some modules fold from now on, whenever their norm is in eval.

    parts: modules that are called, of a detector its backbone, neck and heads: scale and shift are made when
    one is. Found are mmdet's ResNet, mmcv's ConvModule and nn.Sequential; other networks stay as they are,
    and so does a convolution that several norms share.
    """
    found = [(part, list(find_pairs(part))) for part in parts]
    uses = Counter(id(module) for _, pairs in found for pair in pairs for module in pair)
    count = 0
    for part, pairs in found:
        own = [pair for pair in pairs if uses[id(pair.conv)] == uses[id(pair.norm)] == 1]
        count += len(own)
        if own:
            Folding(own).attach(part)
    return count


def unfold_norms(module: nn.Module) -> None:
    """Takes back what `fold_norms` did below a module: for who is about to replace its norms."""
    for each in module.modules():
        if isinstance(vars(each).get("folding"), Folding):
            vars(each).pop("folding").detach()


class Folding:
    """The pairs of a module, folded while it is called.

    Outside of the call nothing is: gradient checkpointing, which runs a part of it again by itself, then
    computes the norm. (torch's non-reentrant kind would refuse that; mmdet's and mmcv's is the other.)
    """

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs

    def attach(self, module: nn.Module) -> None:
        """Has the pairs folded whenever the module is called."""
        for pair in self.pairs:
            _set(pair, None)
            pair.conv.forward = partial(_conv_forward, pair.conv)  # type: ignore[method-assign]
            pair.norm.forward = partial(_norm_forward, pair.norm)  # type: ignore[method-assign]
        vars(module)["folding"] = self
        module.register_forward_pre_hook(self.begin)
        module.register_forward_hook(self.end, always_call=True)

    def detach(self) -> None:
        """Gives the pairs their own forward back; the hooks find none any more."""
        for pair in self.pairs:
            for module in pair:
                for name in ("forward", "folded"):
                    vars(module).pop(name)
        self.pairs = []

    def begin(self, module: nn.Module, inputs: Any) -> None:
        """Makes scale and shift of every pair whose norm is in eval: all at once, in a few operators."""
        pairs = [pair for pair in self.pairs if not pair.norm.training]
        if not pairs:
            return
        learned = torch.is_grad_enabled() and any(
            each.requires_grad for _, norm in pairs for each in (norm.weight, norm.bias)
        )
        scales, shifts = (_learned if learned else _fixed)([norm for _, norm in pairs])
        for pair, scale, shift in zip(pairs, scales, shifts, strict=True):
            _set(pair, (scale, shift))

    def end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Lets go of them."""
        for pair in self.pairs:
            _set(pair, None)


def _set(pair: Pair, folded: tuple[Tensor, Tensor] | None) -> None:
    for module in pair:
        module.__dict__["folded"] = folded


Scales = tuple[Sequence[Tensor], Sequence[Tensor]]  # of each norm (C, 1, 1, 1), and its shifts (C,)


@torch.no_grad()
def _fixed(norms: Sequence[nn.BatchNorm2d]) -> Scales:
    """Scales and shifts of norms that don't learn: of all channels in one row, in a dozen operators."""
    scale = _deviations(norms).reciprocal_().mul_(torch.cat([norm.weight for norm in norms]))
    means = torch.cat([_statistic(norm.running_mean) for norm in norms])
    shift = torch.cat([norm.bias for norm in norms]) - means * scale
    sizes = [norm.num_features for norm in norms]
    return torch.split(scale.view(-1, 1, 1, 1), sizes), torch.split(shift, sizes)


def _learned(norms: Sequence[nn.BatchNorm2d]) -> Scales:
    """The same with a gradient, one by one: that of all together would come only when the backward ends."""
    with torch.no_grad():
        inverse = torch.split(_deviations(norms).reciprocal_(), [norm.num_features for norm in norms])
    scales = [norm.weight * each for norm, each in zip(norms, inverse, strict=True)]
    shifts = [
        torch.addcmul(norm.bias, _statistic(norm.running_mean), scale, value=-1)
        for norm, scale in zip(norms, scales, strict=True)
    ]
    return [each.view(-1, 1, 1, 1) for each in scales], shifts


def _deviations(norms: Sequence[nn.BatchNorm2d]) -> Tensor:
    """The standard deviations that norms divide by, all channels in one row."""
    variances, epsilons = [_statistic(norm.running_var) for norm in norms], [norm.eps for norm in norms]
    if len(set(epsilons)) > 1:
        return torch.cat(torch._foreach_add(variances, epsilons)).sqrt_()
    return torch.cat(variances).add_(epsilons[0]).sqrt_()


def _statistic(value: Tensor | None) -> Tensor:
    assert value is not None  # find_pairs leaves out norms without statistics
    return value


def _conv_forward(conv: Any, images: Tensor) -> Tensor:
    """The convolution, with the norm in it while its part of the network is called."""
    if conv.folded is None:
        return nn.Conv2d.forward(conv, images)
    scale, shift = conv.folded
    result: Tensor = conv._conv_forward(images, conv.weight * scale, shift)
    return result


def _norm_forward(norm: Any, images: Tensor) -> Tensor:
    """Nothing is left to do where the convolution did it."""
    return images if norm.folded is not None else nn.BatchNorm2d.forward(norm, images)


# ---------------------------------------------------------------- who feeds whom


def find_pairs(module: nn.Module) -> Iterator[Pair]:
    """Pairs below a module whose forward is known to hand the convolution's output to the norm alone."""
    for each in module.modules():
        for conv, norm in _candidates(each):
            known = _plain(conv, nn.Conv2d) and _plain(norm, nn.BatchNorm2d)
            if known and conv.bias is None and norm.affine and norm.track_running_stats:
                yield Pair(conv, norm)


def _plain(module: Any, kind: type[nn.Module]) -> bool:
    """Whether a module is exactly of a class, and nothing hooks into its call."""
    hooked = module is not None and (module._forward_hooks or module._forward_pre_hooks)
    return type(module) is kind and not hooked


def _candidates(module: Any) -> Iterator[tuple[Any, Any]]:
    # mmcv's and mmdet's modules import its kernels: only after kernels.install(), which import may precede.
    from mmcv.cnn import ConvModule
    from mmdet.models.backbones.resnet import BasicBlock, Bottleneck, ResNet

    forward = type(module).forward
    if forward is nn.Sequential.forward:
        yield from pairwise(module)
    elif forward is ConvModule.forward and module.with_norm and module.order[:2] == ("conv", "norm"):
        yield module.conv, module.norm
    elif forward is ResNet.forward and not module.deep_stem:
        yield module.conv1, module.norm1
    elif forward in (BasicBlock.forward, Bottleneck.forward):
        for number in range(1, 4 if forward is Bottleneck.forward else 3):
            yield getattr(module, f"conv{number}"), getattr(module, f"norm{number}")
