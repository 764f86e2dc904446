"""Latent optimisation (LOGAN; Wu et al. 2019, arXiv 1912.00953): a natural gradient step of z before the players'."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gan_plugin.layers.double_backward import input_gradient


def latent_step(gradient: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """dz = alpha / (beta + |g|^2) g for each sample (source document, equation 2).

    Args:
        gradient: (N, latent_size), d f(z) / d z.
        alpha, beta: step size and damping, beta above 0.

    Returns:
        (N, latent_size), with the gradient of `gradient`.
    """
    return alpha / (beta + gradient.square().sum(dim=1, keepdim=True)) * gradient


@dataclass(frozen=True)
class LatentOptimizer:
    """Moves z towards what the discriminator takes for real.

    Attributes:
        alpha, beta: of `latent_step`.
        clip: z + dz is held in [-clip, clip]; 0 for no bound.
        share: of z's entries that move, the first ones, in (0, 1].
        still: entries at the end of z that are a label, which neither moves nor counts.
    """

    alpha: float = 0.9
    beta: float = 5.0
    clip: float = 0.0
    share: float = 1.0
    still: int = 0

    def __call__(
        self, judge: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The moved latents and dz, both (N, latent_size), in float32; dz without the label.

        Gradients pass through dz into whatever networks `judge`, z -> (N,) = D(G(z)), lets learn: a second derivative,
        so mixed precision is off here.
        """
        with torch.autocast(z.device.type, enabled=False), torch.enable_grad():
            z = z.detach().float()
            gradient = input_gradient(judge, z)
            noise, label = z.split([z.shape[1] - self.still, self.still], dim=1)
            step = latent_step(gradient[:, : noise.shape[1]], self.alpha, self.beta)
            if self.share < 1:
                moving = torch.arange(noise.shape[1], device=z.device) < round(self.share * noise.shape[1])
                step = step * moving
            moved = noise + step
            moved = moved.clamp(-self.clip, self.clip) if self.clip else moved
            return torch.cat([moved, label], dim=1), step
