"""Adversarial objectives: what either player minimises, given the discriminator's verdicts.

Every objective takes the discriminator's logits; a sigmoid, where the source has one, is part of the loss. The sums of
the sources' equations are means here, so that the weights do not depend on how many samples a batch happens to hold.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from fvcore.common.registry import Registry

from gan_plugin.config import registered

__all__ = [
    "LSGAN",
    "OBJECTIVE_REGISTRY",
    "AdversarialObjective",
    "Hinge",
    "LeastSquares",
    "Minimax",
    "MultiLayerL1",
    "NonSaturatingBCE",
    "RelativisticAverage",
    "Verdicts",
    "Wasserstein",
    "build_objective",
]


OBJECTIVE_REGISTRY: Registry = Registry("ADVERSARIAL_OBJECTIVE")

# What a discriminator returns: logits, (R,) or (R, H, W); or a tuple of features (R, K), one per layer.
Verdicts = Any
Features = tuple[torch.Tensor, ...]


class AdversarialObjective(ABC):
    """What the two players minimise, given verdicts on R real and F fake samples.

    Class attributes say what an objective asks for:
        judges: "logits", or "features" of every layer of the discriminator.
        uses_labels: whether the discriminator's soft and flipped labels mean something to it.
        pairs: whether the generator's loss looks at verdicts on real samples as well.
        zero_sum: whether the discriminator's loss is the negative of the generator's.
    """

    judges: ClassVar[str] = "logits"
    uses_labels: ClassVar[bool] = True
    pairs: ClassVar[bool] = False
    zero_sum: ClassVar[bool] = False

    @abstractmethod
    def discriminator_loss(
        self, real: Verdicts, fake: Verdicts, real_targets: Verdicts, fake_targets: Verdicts
    ) -> torch.Tensor:
        """The discriminator's loss, a scalar.

        Args:
            real, fake: verdicts, unbounded.
            real_targets, fake_targets: the labels to reach, of the same shapes: 1 and 0, or soft and flipped ones; None
                for an objective without `uses_labels`.
        """

    @abstractmethod
    def generator_loss(self, fake: Verdicts, real: Verdicts = None) -> torch.Tensor:
        """The generator's loss, a scalar.

        Args:
            fake: verdicts on its samples, which still carry its gradient.
            real: verdicts on real samples without gradient; only an objective with `pairs` looks at them.
        """

    def probabilities(self, real: Verdicts, fake: Verdicts) -> tuple[torch.Tensor, torch.Tensor] | None:
        """How real the discriminator takes either set to be, in [0, 1], for its statistics; None if it does not say."""
        return real.sigmoid(), fake.sigmoid()


def build_objective(name: str, key: str = "MODEL.GAN.MASK.OBJECTIVE") -> AdversarialObjective:
    """The registered objective called `name`, which config key `key` names.

    Raises:
        UserError: no objective has that name; the sentence lists the registered ones.
    """
    return registered(key, name, OBJECTIVE_REGISTRY)()


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


@OBJECTIVE_REGISTRY.register()
class MultiLayerL1(AdversarialObjective):
    """Mean absolute difference of the features of all layers; one player maximises it, the other minimises it.

    The objective of Le et al. 2020 (arXiv 2010.13757, figure 3) after SegAN (Xue et al. 2018). Real and fake are
    pairs: the same RoI with the annotated and with the predicted mask. The layers' weights are in the features.
    """

    judges = "features"
    uses_labels = False
    pairs = True
    zero_sum = True

    def discriminator_loss(
        self, real: Features, fake: Features, real_targets: None = None, fake_targets: None = None
    ) -> torch.Tensor:
        return -_distance(real, fake)

    def generator_loss(self, fake: Features, real: Features | None = None) -> torch.Tensor:
        if real is None:
            raise ValueError("a feature distance needs the features of the real samples")
        return _distance(real, fake)

    def probabilities(self, real: Features, fake: Features) -> None:
        return None


def _distance(real: Features, fake: Features) -> torch.Tensor:
    """Two tuples of (R, K_i) to the mean of |real - fake| over all R * sum(K_i) entries."""
    # in float32 at least: a sum in float16 could hold neither itself nor the scaled gradient that it starts from
    kind = torch.promote_types(real[0].dtype, torch.float32)
    total = torch.stack([(b - a).abs().sum(dtype=kind) for a, b in zip(real, fake, strict=True)]).sum()
    return total / sum(a.numel() for a in real)
