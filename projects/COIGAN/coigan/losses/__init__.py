"""What the players minimise; the adversarial objectives themselves are gan_plugin's."""

from .features import (
    FeatureNetwork,
    build_feature_network,
    checked_digest,
    feature_matching,
    plain_perceptual,
    smooth_masked_perceptual,
)
from .masked import (
    LossWeight,
    PathLength,
    loss_weight,
    masked_patch_loss,
    path_lengths,
    plain_distance,
    smooth_mask,
    smooth_masked_l1,
    weight_map,
)

__all__ = [
    "FeatureNetwork",
    "LossWeight",
    "PathLength",
    "build_feature_network",
    "checked_digest",
    "feature_matching",
    "loss_weight",
    "masked_patch_loss",
    "path_lengths",
    "plain_distance",
    "plain_perceptual",
    "smooth_mask",
    "smooth_masked_l1",
    "smooth_masked_perceptual",
    "weight_map",
]
