"""Is a real sample more realistic than the average fake one? (Jolicoeur-Martineau 2018, arXiv 1807.00734)."""

import torch
import torch.nn.functional as F

from .base import OBJECTIVE_REGISTRY, AdversarialObjective


@OBJECTIVE_REGISTRY.register()
class RelativisticAverage(AdversarialObjective):
    """RaSGAN (section 4.2): cross entropy of each sample's logit less the mean logit of the other side."""

    pairs = True

    def discriminator_loss(
        self, real: torch.Tensor, fake: torch.Tensor, real_targets: torch.Tensor, fake_targets: torch.Tensor
    ) -> torch.Tensor:
        on_real = F.binary_cross_entropy_with_logits(real - fake.mean(), real_targets)
        return on_real + F.binary_cross_entropy_with_logits(fake - real.mean(), fake_targets)

    def generator_loss(self, fake: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        if real is None:
            raise ValueError("a relativistic generator's loss needs the verdicts on real samples")
        return F.softplus(real.mean() - fake).mean() + F.softplus(real - fake.mean()).mean()

    def probabilities(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (real - fake.mean()).sigmoid(), (fake - real.mean()).sigmoid()
