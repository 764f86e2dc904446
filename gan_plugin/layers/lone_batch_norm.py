"""Batch normalisation that survives a batch of one value."""

import torch
import torch.nn.functional as F
from torch import nn


class LoneBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that normalises by its running statistics where a channel has one value only.

    That happens in a discriminator's last layers when an iteration has a single foreground RoI; PyTorch refuses it.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)
