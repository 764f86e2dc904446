"""Least squares in place of cross entropy: a gradient also where the discriminator is sure."""

import torch
import torch.nn.functional as F

from .base import OBJECTIVE_REGISTRY, AdversarialObjective


@OBJECTIVE_REGISTRY.register()
class LeastSquares(AdversarialObjective):
    """Squared distance of the discriminator's probabilities to the labels (thesis eq 4.5 and 4.6, "MSE")."""

    def discriminator_loss(
        self, real: torch.Tensor, fake: torch.Tensor, real_targets: torch.Tensor, fake_targets: torch.Tensor
    ) -> torch.Tensor:
        return F.mse_loss(real.sigmoid(), real_targets) + F.mse_loss(fake.sigmoid(), fake_targets)

    def generator_loss(self, fake: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        return (fake.sigmoid() - 1).square().mean()


@OBJECTIVE_REGISTRY.register()
class LSGAN(AdversarialObjective):
    """Least squares on the raw outputs, without a sigmoid (Mao et al. 2017, arXiv 1611.04076, eq 9)."""

    def discriminator_loss(
        self, real: torch.Tensor, fake: torch.Tensor, real_targets: torch.Tensor, fake_targets: torch.Tensor
    ) -> torch.Tensor:
        return 0.5 * (F.mse_loss(real, real_targets) + F.mse_loss(fake, fake_targets))

    def generator_loss(self, fake: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        return 0.5 * (fake - 1).square().mean()

    def probabilities(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return real.clamp(0, 1), fake.clamp(0, 1)
