"""Boundary IoU against cases counted by hand and against faster-coco-eval's bands."""

import numpy as np
import pytest
from coco_scene import ellipse
from faster_coco_eval.core.mask import rleToBoundary
from pycocotools import mask as rle_tools

from gan_plugin.evaluation.truth_boxes import boundary_band, boundary_iou

# a diagonal of 50 pixels: bands are 1 wide
SHAPE = (30, 40)


def square(top, left, side=10):
    mask = np.zeros(SHAPE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def rle_of(mask):
    return rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_a_band_by_hand():
    band = boundary_band(square(5, 5))
    assert band.sum() == 100 - 64 and not band[6:14, 6:14].any()
    # the picture's border is an outline too
    assert boundary_band(square(0, 0)).sum() == 36
    assert not boundary_band(np.zeros(SHAPE, bool)).any()


def test_shifted_squares_by_hand():
    # masks share 10 x 9 pixels; bands share the upper and lower rows, 9 pixels each, and no column
    assert boundary_iou(square(5, 5), square(5, 6)) == pytest.approx(18 / (36 + 36 - 18))
    assert boundary_iou(square(5, 5), square(5, 5)) == 1
    assert boundary_iou(square(5, 5), square(5, 20)) == 0
    # a hole of 2 x 2 in the core has a band of its own: what is left of the 4 x 4 around it, 12 pixels
    holed = square(5, 5)
    holed[9:11, 9:11] = False
    assert boundary_iou(square(5, 5), holed) == pytest.approx(36 / (36 + 12))
    assert boundary_iou(np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)) == 0


@pytest.mark.parametrize("shape", [(37, 53), (211, 150), (300, 400)])
def test_the_bands_are_the_librarys(shape):
    rng = np.random.default_rng(3)
    for _ in range(12):
        masks = [ellipse(rng, *shape) | ellipse(rng, *shape) for _ in range(2)]
        bands = [rleToBoundary(rle_of(mask)) for mask in masks]
        for mask, band in zip(masks, bands, strict=True):
            assert np.array_equal(boundary_band(mask), rle_tools.decode(band) > 0)
        assert boundary_iou(*masks) == pytest.approx(rle_tools.iou(bands[:1], bands[1:], [0])[0, 0])
