"""What several processes owe each other: DistributedDataParallel, and what it does not reach."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed
from detectron2.engine import create_ddp_model
from detectron2.utils import comm
from torch import nn

from gan_plugin.layers.layout import laid_out_like

# Elements of a bucket (100 MB in float32): bounds the memory of the copy.
_BUCKET = 25_000_000


def wrap_for_processes(model: nn.Module, **options: Any) -> nn.Module:
    """The model in DistributedDataParallel if there are several processes.

    Args:
        model: on its device.
        options: of Detectron2's `create_ddp_model`.
    """
    # On a CPU there is no device to name, and Detectron2 would name one.
    devices = {"device_ids": None} if next(model.parameters()).device.type == "cpu" else {}
    return create_ddp_model(model, **devices, **options)


def share_weights(model: nn.Module) -> None:
    """Give every process the parameters and buffers of the first one, as DistributedDataParallel does at its start."""
    if comm.get_world_size() > 1:
        for tensor in model.state_dict().values():
            torch.distributed.broadcast(tensor, 0)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes; a missing one counts as zero.

    The parameters must come in the same order in every process. DistributedDataParallel would do so during backward,
    but only for a module's own `forward`, once, with one loss.
    """
    world = comm.get_world_size()
    if world == 1:
        return
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    for bucket in _buckets(learning):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        parts = (flat / world).split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(bucket, parts, strict=True):
            parameter.grad = laid_out_like(part.view_as(parameter), parameter)


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set in any process; all must ask."""
    if comm.get_world_size() == 1:
        return flag
    tensor = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(tensor)
    return bool(tensor > 0)


def _buckets(parameters: list[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and (size + parameter.numel() > _BUCKET or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket
