"""Objectives whose discriminator is a critic: it scores, there are no labels, and soft or flipped ones are ignored."""

import torch

from .base import OBJECTIVE_REGISTRY, AdversarialObjective


class _Critic(AdversarialObjective):
    uses_labels = False

    def generator_loss(self, fake: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        return -fake.mean()


@OBJECTIVE_REGISTRY.register()
class Hinge(_Critic):
    """Scores beyond a margin of 1 on the right side cost nothing (Lim and Ye 2017, arXiv 1705.02894)."""

    def discriminator_loss(
        self, real: torch.Tensor, fake: torch.Tensor, real_targets: None = None, fake_targets: None = None
    ) -> torch.Tensor:
        return (1 - real).relu().mean() + (1 + fake).relu().mean()

    def probabilities(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return ((real + 1) / 2).clamp(0, 1), ((fake + 1) / 2).clamp(0, 1)


@OBJECTIVE_REGISTRY.register()
class Wasserstein(_Critic):
    """The difference of the mean scores (Arjovsky et al. 2017, arXiv 1701.07875).

    The critic must be held to slope 1: `MODEL.GAN.REG.GP_WEIGHT: 10` makes it WGAN-GP (Gulrajani et al. 2017).
    """

    def discriminator_loss(
        self, real: torch.Tensor, fake: torch.Tensor, real_targets: None = None, fake_targets: None = None
    ) -> torch.Tensor:
        return fake.mean() - real.mean()

    def probabilities(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Scores have no origin; what lies above the middle of both means is taken for real.
        middle = (real.mean() + fake.mean()) / 2
        return (real - middle).sigmoid(), (fake - middle).sigmoid()
