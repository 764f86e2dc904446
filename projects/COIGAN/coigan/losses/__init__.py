"""What the players minimise; the adversarial objectives themselves are gan_plugin's."""

from .feature_network import FeatureNetwork, build_feature_network, checked_digest
from .patches import masked_patch_loss
from .path_length import PathLength, path_lengths
from .perceptual import feature_matching, plain_perceptual, smooth_masked_perceptual
from .pixel import plain_distance, smooth_masked_l1
from .smooth_mask import smooth_mask, weight_map
from .weights import LossWeight, loss_weight

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
