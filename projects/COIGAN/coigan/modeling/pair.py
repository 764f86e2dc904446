"""The verdicts on real and on generated images of one step."""

import torch
from torch import nn


def judge_pair(network: nn.Module, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of `network` on both, (N, C, H, W) each, as two calls of it would give them, in float32.

    A network that has `keeps_batches_apart` gets both in one call, which is faster where its feature maps are small.
    Batch normalisation has no way to keep them apart.
    """
    if getattr(network, "keeps_batches_apart", False) and real.shape == fake.shape:
        on_real, on_fake = network(torch.cat([real, fake]), batches=2).chunk(2)
    else:
        on_real, on_fake = network(real), network(fake)
    # a loss in float16 could not hold the scaled gradient that it starts from
    return on_real.float(), on_fake.float()
