"""The one signature of all objectives, and their registry.

Every objective takes the discriminator's logits; a sigmoid, where the source has one, is part of the loss. The sums of
the sources' equations are means here, so that the weights do not depend on how many samples a batch happens to hold.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from fvcore.common.registry import Registry

from gan_plugin.config import registered

OBJECTIVE_REGISTRY: Registry = Registry("ADVERSARIAL_OBJECTIVE")

# What a discriminator returns: logits, (R,) or (R, H, W); or a tuple of features (R, K), one per layer.
Verdicts = Any


class AdversarialObjective(ABC):
    """What the two players minimise, given verdicts on R real and F fake samples.

    Class attributes say what an objective asks for:
        judges: "logits", or "features" of every layer of the discriminator.
        uses_labels: whether the discriminator's soft and flipped labels mean something to it.
        pairs: whether the generator's loss looks at verdicts on real samples as well.
    """

    judges: ClassVar[str] = "logits"
    uses_labels: ClassVar[bool] = True
    pairs: ClassVar[bool] = False

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
