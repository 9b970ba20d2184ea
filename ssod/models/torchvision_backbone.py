"""TorchvisionBackbone: any torchvision classifier with `.features` as an mmdet backbone, by feature index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torchvision
from mmengine.model import BaseModule
from torch import Tensor, nn

from .. import safe_load
from ..errors import UserError
from ..registry import MODELS


@MODELS.register_module()
class TorchvisionBackbone(BaseModule):  # type: ignore[misc]
    """The outputs of chosen `features` blocks of a torchvision model, e.g. mobilenet_v2 at (3, 6, 13, 17).

    model: a name of torchvision.models whose network has a sequential `features` · out_indices: blocks to
    return, ascending; what lies behind the last is dropped · weights: path of a state_dict of the whole
    classifier, or None for random weights · frozen_blocks: how many first blocks don't train ·
    norm_eval: BatchNorm keeps its stored statistics and doesn't train.
    """

    def __init__(
        self,
        model: str,
        out_indices: Sequence[int],
        weights: str | None = None,
        frozen_blocks: int = 0,
        norm_eval: bool = True,
    ) -> None:
        super().__init__()
        try:
            network = torchvision.models.get_model(model, weights=None)
        except ValueError as error:
            raise UserError(f"TorchvisionBackbone: torchvision has no model {model!r}") from error
        if not isinstance(getattr(network, "features", None), nn.Sequential):
            raise UserError(f"TorchvisionBackbone: {model} has no sequential `features`; try mobilenet_v2")
        if weights is not None:
            path = Path(weights)
            if not path.is_file():
                raise UserError(
                    f"TorchvisionBackbone: no weights file {path}; set SSOD_WEIGHTS_ROOT to its folder"
                )
            network.load_state_dict(safe_load.read(path))
        self.out_indices = tuple(out_indices)
        if max(self.out_indices) >= len(network.features):
            raise UserError(
                f"TorchvisionBackbone: out_indices={self.out_indices}, but {model} has "
                f"{len(network.features)} feature blocks, counted from 0"
            )
        self.features = network.features[: max(self.out_indices) + 1]
        self.frozen_blocks = frozen_blocks
        self.norm_eval = norm_eval
        for block in self.features[:frozen_blocks]:
            block.requires_grad_(False)
        if norm_eval:
            for module in self.features.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.requires_grad_(False)

    def init_weights(self) -> None:
        """Does nothing: torchvision's own initialisation, or the weights file, already stands."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of images (B, 3, H, W), one for each of `out_indices`."""
        outputs = []
        for index, block in enumerate(self.features):
            images = block(images)
            if index in self.out_indices:
                outputs.append(images)
        return tuple(outputs)

    def train(self, mode: bool = True) -> TorchvisionBackbone:
        """Training mode; frozen blocks, and with `norm_eval` every BatchNorm, stay in eval."""
        super().train(mode)
        self.features[: self.frozen_blocks].eval()
        if self.norm_eval:
            for module in self.features.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self
