"""How often a discriminator's samples are augmented, as its overfitting asks for (ADA)."""

from collections.abc import Sequence

import torch
from detectron2.utils import comm
from torch import nn

from gan_plugin.errors import UserError
from gan_plugin.processes import mean_over_processes

from .augment import DiscriminatorAugment


class AdaptiveAugment(nn.Module):
    """Each augmentation of a policy with probability p on each sample; p follows r = E[sign(D(real))].

    Karras et al. 2020, arXiv 2006.06676, section 3: a discriminator that is sure of the training set, r above the
    target, has p raised, else it falls, so fast that p could go from 0 to 1 within `images` real images. The state is
    a part of a checkpoint.
    """

    probability: torch.Tensor

    def __init__(self, policy: str, target: float = 0.6, images: int = 500_000) -> None:
        """
        Args:
            policy: see DiscriminatorAugment.
            target: of r, in (0, 1).
            images: real images in which p could rise from 0 to 1.

        Raises:
            UserError: a policy is unknown, there is none, or a number is out of range.
        """
        super().__init__()
        if not 0 < target < 1 or images < 1:
            raise UserError(
                f"ADA's TARGET is {target} and IMAGES {images}; set them between 0 and 1, and to 1 or more."
            )
        self._augments: Sequence[DiscriminatorAugment] = [
            DiscriminatorAugment(name) for name in policy.split(",") if name.strip()
        ]
        if not self._augments:
            raise UserError("ADA needs augmentations; name some with DIFFAUG, such as translation,cutout.")
        self._target, self._images = target, images
        self.register_buffer("probability", torch.zeros(()))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """(R, C, S, S) to the same shape, differentiable."""
        for augment in self._augments:
            chosen = torch.rand(len(samples), 1, 1, 1, device=samples.device) < self.probability
            samples = torch.where(chosen, augment(samples), samples)
        return samples

    @torch.no_grad()
    def observe(self, verdicts: torch.Tensor) -> None:
        """Move p by the logits of real samples, (R,) or maps (R, H, W), which were augmented like all others."""
        sign = mean_over_processes(verdicts.float().sign().mean())
        step = torch.sign(sign - self._target) * len(verdicts) * comm.get_world_size() / self._images
        self.probability.add_(step).clamp_(0, 1)
