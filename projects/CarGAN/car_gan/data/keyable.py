"""Which crops can be told from what they lie on."""

import numpy as np

from car_gan.compose.matting import LEAST_GREENNESS, greenness

from .crop_dataset import CropDataset


def has_ground(crops: CropDataset) -> bool:
    """Whether crops lie on a colour that they can be taken off: not with their surroundings, nor on grey."""
    in_context = crops.records[0].get("mode") == "context"
    return not in_context and float(greenness(np.asarray(crops.key), crops.key)) >= LEAST_GREENNESS
