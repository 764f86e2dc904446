"""A distance between what the discriminator sees in the truth and in the prediction, in place of a verdict."""

import torch

from .base import OBJECTIVE_REGISTRY, AdversarialObjective

Features = tuple[torch.Tensor, ...]


@OBJECTIVE_REGISTRY.register()
class MultiLayerL1(AdversarialObjective):
    """Mean absolute difference of the features of all layers; one player maximises it, the other minimises it.

    The objective of Le et al. 2020 (arXiv 2010.13757, figure 3) after SegAN (Xue et al. 2018). Real and fake are
    pairs: the same RoI with the annotated and with the predicted mask. The layers' weights are in the features.
    """

    judges = "features"
    uses_labels = False
    pairs = True

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
