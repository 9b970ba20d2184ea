"""BatchNorm's running means and variances: the same on all processes, and kept finite."""

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class RunningStatistics:
    """What BatchNorm collects; `settle` shares it and takes back what is not finite.

    They change in the forward pass. Each process sees other images, so each would have its own student and,
    through the copy, its own teacher, of which a checkpoint holds one: they are averaged over the processes.
    And leaving out a step doesn't keep an image that gives nan out of them. Costs a few kernels and one small
    exchange a step, or nothing where BatchNorm is frozen.
    """

    def __init__(self, model: nn.Module) -> None:
        norms = [each for each in model.modules() if isinstance(each, _NormBase) and each.training]
        both = [buffer for each in norms for buffer in (each.running_mean, each.running_var)]
        self.buffers = [buffer for buffer in both if buffer is not None]
        self.sizes = [buffer.numel() for buffer in self.buffers]
        self.kept = self._together() if self.buffers else None

    def _together(self) -> Tensor:
        return torch.cat([buffer.flatten() for buffer in self.buffers])

    @torch.no_grad()
    def settle(self) -> None:
        """Averages them over all processes; puts the last finite value in the place of each that is not.

        All processes call it in the same step.
        """
        if self.kept is not None:
            now = self._together()
            all_reduce(now, "mean")
            self.kept = torch.where(torch.isfinite(now), now, self.kept)
            torch._foreach_copy_(self.buffers, torch.split(self.kept, self.sizes))
