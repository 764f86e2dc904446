"""The objectives of the first GAN (Goodfellow et al. 2014, arXiv 1406.2661)."""

import torch
import torch.nn.functional as F

from .base import OBJECTIVE_REGISTRY, AdversarialObjective


@OBJECTIVE_REGISTRY.register()
class NonSaturatingBCE(AdversarialObjective):
    """Binary cross entropy with the generator's labels flipped to 1 (thesis eq 4.2 to 4.4; Goodfellow et al. 2014).

    A soft target above 1 makes the discriminator's loss unbounded below on that sample, as in the thesis; the flips and
    the other targets are what holds the logits. `LABELS.REAL: (0.7, 1.0)` bounds it.
    """

    def discriminator_loss(
        self, real: torch.Tensor, fake: torch.Tensor, real_targets: torch.Tensor, fake_targets: torch.Tensor
    ) -> torch.Tensor:
        on_real = F.binary_cross_entropy_with_logits(real, real_targets)
        return on_real + F.binary_cross_entropy_with_logits(fake, fake_targets)

    def generator_loss(self, fake: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        return F.softplus(-fake).mean()


@OBJECTIVE_REGISTRY.register()
class Minimax(NonSaturatingBCE):
    """The zero-sum game: the generator minimises log(1 - D(fake)) (thesis 4.3.1; Goodfellow et al. 2014, eq 1).

    Its gradient vanishes where the discriminator is sure; NonSaturatingBCE is the cure.
    """

    def generator_loss(self, fake: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        return -F.softplus(fake).mean()
