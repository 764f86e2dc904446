"""How much the adversarial loss should weigh beside the loss that it complements."""

from dataclasses import dataclass

import torch
from torch import nn

from gan_plugin.processes import mean_over_processes

# delta of the source: keeps the ratio finite where the adversarial gradient vanishes
_DELTA = 1e-6
# keeps the gradients in half precision from vanishing on their way, as a GradScaler would
_SCALE = 2.0**10


@dataclass(frozen=True)
class GradientNormBalance:
    """VQGAN's rule (Esser et al. 2021, arXiv 2012.09841, eq 7): the ratio of both losses' gradient norms at the last
    layer of the head that they share, so that both pull equally hard there.

    Attributes:
        max_weight: the greatest ratio.
    """

    max_weight: float = 1e4

    def __call__(self, reference: torch.Tensor, loss: torch.Tensor, last_layer: nn.Parameter) -> torch.Tensor:
        """The factor for `loss`, a scalar in [0, max_weight] without gradient, the same in every process.

        Args:
            reference: the head's own loss, such as loss_mask.
            loss: its adversarial loss, unweighted.
            last_layer: the weight of the layer that made the samples.
        """
        own = torch.stack([_gradient_norm(value, last_layer) for value in (reference, loss)])
        norms = mean_over_processes(own)
        # where either has overflowed in half precision, the ratio is unknown and nothing should pull
        return torch.where(norms.isfinite().all(), norms[0] / (norms[1] + _DELTA), 0).clamp(max=self.max_weight)


def _gradient_norm(loss: torch.Tensor, weight: nn.Parameter) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss * _SCALE, weight, retain_graph=True, allow_unused=True)
    return weight.new_zeros(()) if gradient is None else gradient.detach().float().norm() / _SCALE
