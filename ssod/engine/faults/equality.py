"""Whether all processes hold the same numbers, at the price of one small exchange."""

import torch
from mmengine.dist import all_gather, get_world_size
from torch import Tensor, nn

from ssod.errors import RunError

CHUNK = 2**20  # elements at a time: their int64 copy takes 8 MiB
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an element


def checksum(tensor: Tensor) -> Tensor:
    """A number (int64 scalar, on the tensor's device) made of the tensor's bits and where they stand.

    Σ bits · (2 i + 1) modulo 2^64 over each run of `CHUNK` elements i: one changed bit always shows.
    """
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    bits = flat.view(BITS[flat.element_size()])
    places = torch.arange(min(CHUNK, len(bits)), device=bits.device) * 2 + 1
    sums = [(part.long() * places[: len(part)]).sum() for part in torch.split(bits, CHUNK)]
    return torch.stack(sums).sum()


def check_equal_on_ranks(module: nn.Module, what: str) -> None:
    """Raises RunError, on every process, unless all have the same parameters and buffers, bit by bit.

    what: begins the sentence, such as "teacher". All processes must call it. Waits for the device once.
    """
    if get_world_size() == 1:
        return
    state = {name: each for name, each in module.state_dict().items() if isinstance(each, Tensor)}
    if not state:
        return
    found = all_gather(torch.stack([checksum(each) for each in state.values()]))
    table = torch.stack([each.cpu() for each in found])  # (ranks, tensors). sync: at checkpoints only
    different = (table != table[0]).any(dim=0)
    if not different.any():
        return
    first = int(different.int().argmax())
    ranks = [str(rank) for rank, each in enumerate(table[:, first]) if each != table[0, first]]
    raise RunError(
        f"{what}: {list(state)[first]} and {int(different.sum()) - 1} more of {len(state)} tensors are not "
        f"the same on process 0 and process {', '.join(ranks)}: go on from the last checkpoint with "
        "--resume, and look for code that draws or counts for itself on each process"
    )
