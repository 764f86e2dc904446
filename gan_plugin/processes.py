"""What the processes of a training tell each other about their samples."""

import torch
import torch.distributed
from detectron2.utils import comm


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """`values` (any shape, floating point) averaged over all processes, without gradient; all must ask.

    With one process these are the values themselves.
    """
    if comm.get_world_size() == 1:
        return values.detach()
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total / comm.get_world_size()
