"""The toy steel that most tests of COIGAN's data read, and what a class covers of an image."""

import numpy as np
from coigan.data.prepare import PrepareOptions

OPTIONS = PrepareOptions(tile=64, workers=1, toy_count=16, toy_size=(96, 200))


def class_masks(regions, classes, height, width):
    """(classes, height, width) bool: for each class the union of its regions."""
    masks = np.zeros((classes, height, width), bool)
    for region in regions:
        masks[region.label, region.y : region.box[3] + 1, region.x : region.box[2] + 1] |= region.mask
    return masks
