"""Adversarial objectives: logits in, scalar losses out, one class each, one signature.

Every objective takes the discriminator's logits; a sigmoid, where the source has one, is part of the loss. The sums of
the thesis' equations are means here, so that the weights do not depend on how many masks a batch happens to hold.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from fvcore.common.registry import Registry

from gan_plugin.errors import UserError

OBJECTIVE_REGISTRY: Registry = Registry("ADVERSARIAL_OBJECTIVE")


class AdversarialObjective(ABC):
    """What the two players minimise, given verdicts on R real and F fake samples."""

    @abstractmethod
    def discriminator_loss(
        self,
        real_logits: torch.Tensor,
        fake_logits: torch.Tensor,
        real_targets: torch.Tensor,
        fake_targets: torch.Tensor,
    ) -> torch.Tensor:
        """The discriminator's loss, a scalar.

        Args:
            real_logits, fake_logits: (R,) and (F,), unbounded.
            real_targets, fake_targets: (R,) and (F,), the labels to reach: 1 and 0, or soft and flipped ones.
        """

    @abstractmethod
    def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
        """The generator's loss, a scalar, from (F,) logits of its samples that still carry its gradient."""

    def verdict(self, logits: torch.Tensor) -> torch.Tensor:
        """What the discriminator takes for real, in [0, 1], for its statistics; same shape as `logits`."""
        return logits.sigmoid()


@OBJECTIVE_REGISTRY.register()
class NonSaturatingBCE(AdversarialObjective):
    """Binary cross entropy with the generator's labels flipped to 1 (thesis eq 4.2 to 4.4; Goodfellow et al. 2014).

    A soft target above 1 makes the discriminator's loss unbounded below on that sample, as in the thesis; the flips and
    the other targets are what holds the logits. `LABELS.REAL: (0.7, 1.0)` bounds it.
    """

    def discriminator_loss(
        self,
        real_logits: torch.Tensor,
        fake_logits: torch.Tensor,
        real_targets: torch.Tensor,
        fake_targets: torch.Tensor,
    ) -> torch.Tensor:
        real = F.binary_cross_entropy_with_logits(real_logits, real_targets)
        return real + F.binary_cross_entropy_with_logits(fake_logits, fake_targets)

    def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
        return F.softplus(-fake_logits).mean()


@OBJECTIVE_REGISTRY.register()
class Minimax(NonSaturatingBCE):
    """The zero-sum game: the generator minimises log(1 - D(fake)) (thesis 4.3.1; Goodfellow et al. 2014, eq 1).

    Its gradient vanishes where the discriminator is sure; NonSaturatingBCE is the cure.
    """

    def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
        return -F.softplus(fake_logits).mean()


@OBJECTIVE_REGISTRY.register()
class LeastSquares(AdversarialObjective):
    """Squared distance of the discriminator's probabilities to the labels (thesis eq 4.5 and 4.6, "MSE")."""

    def discriminator_loss(
        self,
        real_logits: torch.Tensor,
        fake_logits: torch.Tensor,
        real_targets: torch.Tensor,
        fake_targets: torch.Tensor,
    ) -> torch.Tensor:
        return F.mse_loss(real_logits.sigmoid(), real_targets) + F.mse_loss(fake_logits.sigmoid(), fake_targets)

    def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
        return (fake_logits.sigmoid() - 1).square().mean()


@OBJECTIVE_REGISTRY.register()
class LSGAN(AdversarialObjective):
    """Least squares on the raw outputs, without a sigmoid (Mao et al. 2017, arXiv 1611.04076, eq 9)."""

    def discriminator_loss(
        self,
        real_logits: torch.Tensor,
        fake_logits: torch.Tensor,
        real_targets: torch.Tensor,
        fake_targets: torch.Tensor,
    ) -> torch.Tensor:
        return 0.5 * (F.mse_loss(real_logits, real_targets) + F.mse_loss(fake_logits, fake_targets))

    def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
        return 0.5 * (fake_logits - 1).square().mean()

    def verdict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.clamp(0, 1)


def build_objective(name: str) -> AdversarialObjective:
    """The registered objective called `name`.

    Raises:
        UserError: no objective has that name; the sentence lists the registered ones.
    """
    if name not in OBJECTIVE_REGISTRY:
        known = ", ".join(sorted(key for key, _ in OBJECTIVE_REGISTRY))
        raise UserError(f"MODEL.GAN.MASK.OBJECTIVE is {name!r}, which is unknown; the registered ones are {known}.")
    return OBJECTIVE_REGISTRY.get(name)()
