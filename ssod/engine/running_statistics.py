"""BatchNorm's running means and variances, kept finite where a forward pass was not."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class RunningStatistics:
    """The means and variances that BatchNorm collects; `mend` takes back those that are not finite.

    They change in the forward pass: leaving out the step doesn't keep an image that gives nan out of them,
    and the teacher takes them over. Costs a few kernels a step, or nothing where BatchNorm is frozen.
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
    def mend(self) -> None:
        """Puts the last finite value in the place of each that is not."""
        if self.kept is not None:
            now = self._together()
            self.kept = torch.where(torch.isfinite(now), now, self.kept)
            torch._foreach_copy_(self.buffers, torch.split(self.kept, self.sizes))
