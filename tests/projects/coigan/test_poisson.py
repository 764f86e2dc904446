"""Poisson blending against cases with a known solution."""

import numpy as np
from coigan.augmentation import poisson_blend


def test_a_flat_object_continues_the_image():
    """Without gradients of its own the object becomes the harmonic filling: on a ramp, the ramp itself."""
    ramp = np.broadcast_to(np.arange(0, 200, 10, dtype=np.uint8)[None, :, None], (20, 20, 3)).copy()
    mask = np.zeros((20, 20), bool)
    mask[5:12, 6:15] = True
    assert (poisson_blend(ramp, np.full_like(ramp, 7), mask) == ramp).all()


def test_every_masked_pixel_solves_its_equation():
    rng = np.random.default_rng(0)
    image = np.full((16, 16, 3), 120, np.uint8) + rng.integers(0, 5, (16, 16, 3), np.uint8)
    pixels = rng.integers(100, 140, (16, 16, 3), np.uint8)
    mask = np.zeros((16, 16), bool)
    mask[0:7, 3:9] = True  # at the border too
    mask[10, 2:12] = True  # one pixel thin
    blended = poisson_blend(image, pixels, mask).astype(float)
    assert (blended[~mask] == image[~mask]).all()
    for y, x in np.argwhere(mask):
        left = right = 0.0
        for q in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if min(q) < 0 or max(q) > 15:
                continue
            left = left + blended[y, x] - blended[q]
            if mask[q]:
                right = right + pixels[y, x].astype(float) - pixels[q]
        assert np.abs(left - right).max() <= 4  # eight roundings of up to a half


def test_a_mask_without_an_outline_pastes():
    image, pixels = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 9, np.uint8)
    assert (poisson_blend(image, pixels, np.ones((4, 4), bool)) == 9).all()
