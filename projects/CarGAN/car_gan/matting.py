"""Green-screen keying: from a picture on the key colour to the car's own colours and its alpha channel.

The model is C = alpha * F + (1 - alpha) * K: what is seen, the car, the key colour. With the greenness
s(X) = X_d - max(other channels), d being the key's strongest channel, s is linear in that mixture as long as the key's
other two channels are equal, hence alpha = (s(K) - s(C)) / (s(K) - s(F)). F is not known; near the car's border it is
taken from the nearest pixel that is surely inside. Brightness and texture do not enter, so that a dark or patterned car
keeps a solid body.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from scipy import ndimage

from car_gan.pictures import Colour
from gan_plugin.errors import UserError

# a pixel with at most this share of the key colour in it may be inside the car
_INSIDE = 0.25
# below this alpha a pixel's own colour says nothing of the car's
_THIN = 0.15
# a key colour has at least so much of it
LEAST_GREENNESS = 64


def greenness(pixels: np.ndarray, key: Colour) -> np.ndarray:
    """How much the key's strongest channel of `pixels` (..., 3) exceeds the other two: (...) float32."""
    strongest = int(np.argmax(key))
    others = [channel for channel in range(3) if channel != strongest]
    values = np.asarray(pixels, np.float32)
    return values[..., strongest] - values[..., others].max(axis=-1)


def key_out(pixels: np.ndarray, key: Colour, low: float = 0.0, high: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Take a picture off its key colour.

    Args:
        pixels: (H, W, 3) in [0, 255].
        key: the key colour.
        low, high: alpha in between is stretched to [0, 1].

    Returns:
        The car's colours (H, W, 3) float32 in [0, 255] without the key's spill, and alpha (H, W) float32 in [0, 1].

    Raises:
        UserError: the key is too grey to tell it from a car.
    """
    pixels = np.asarray(pixels, np.float32)
    of_key = float(greenness(np.asarray(key), key))
    if of_key < LEAST_GREENNESS:
        raise UserError(
            f"The key colour {key} is too grey to be keyed; use one with a channel well above the others, or RGBA."
        )
    green = greenness(pixels, key)
    share = green / of_key
    inside = share <= _INSIDE
    if not inside.any():
        return np.zeros_like(pixels), np.zeros(pixels.shape[:2], np.float32)
    core = _core(inside)
    # a car of the opposite colour outweighs more of the key: what counts is the way from its own greenness to the key's
    least = np.minimum(greenness(_nearest(pixels, core), key), 0)
    core = _core(inside & (green <= least + _INSIDE * (of_key - least)), core)
    near = _nearest(pixels, core)
    of_car = np.minimum(greenness(near, key), _INSIDE * of_key)
    alpha = np.where(core, 1, np.clip((of_key - share * of_key) / (of_key - of_car), 0, 1)).astype(np.float32)
    alpha = np.clip((alpha - low) / (high - low), 0, 1)
    return unmix(pixels, alpha, key, near), alpha


def _core(inside: np.ndarray, otherwise: np.ndarray | None = None) -> np.ndarray:
    """`inside` without its outermost pixels; `otherwise`, by default `inside` itself, if nothing would be left."""
    core = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1).astype(bool)
    return core if core.any() else inside if otherwise is None else otherwise


def unmix(pixels: np.ndarray, alpha: np.ndarray, key: Colour, near: np.ndarray | None = None) -> np.ndarray:
    """The car's own colours where `alpha` of them lies over the key colour.

    Args:
        pixels: (H, W, 3) in [0, 255].
        alpha: (H, W) in [0, 1].
        key: the key colour.
        near: (H, W, 3), for each pixel a colour of the car near it; None takes the nearest solid pixel's.

    Returns:
        (H, W, 3) float32 in [0, 255]; nowhere greener than the car nearby, which removes the spill.
    """
    if near is None:
        solid = alpha >= 1 if (alpha >= 1).any() else alpha >= alpha.max()
        near = _nearest(np.asarray(pixels, np.float32), solid)
    weight = alpha[..., None]
    own = (pixels - (1 - weight) * np.asarray(key, np.float32)) / np.maximum(weight, _THIN)
    colours = np.where(weight > _THIN, own, near)
    strongest = int(np.argmax(key))
    others = [channel for channel in range(3) if channel != strongest]
    bound = colours[..., others].max(axis=-1) + np.maximum(greenness(near, key), 0)
    colours[..., strongest] = np.minimum(colours[..., strongest], bound)
    return np.clip(colours, 0, 255).astype(np.float32)


def _nearest(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    rows, columns = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return pixels[rows, columns]


def largest_blob(alpha: np.ndarray) -> np.ndarray:
    """`alpha` without what does not hang together with its largest solid part: specks that a GAN leaves on the key."""
    _, labels, numbers, _ = cv2.connectedComponentsWithStats((alpha >= 0.5).astype(np.uint8), connectivity=8)
    if len(numbers) < 2:
        return np.zeros_like(alpha)
    largest = labels == 1 + int(np.argmax(numbers[1:, cv2.CC_STAT_AREA]))
    # the soft border of the largest part, and nothing of the others
    reach = cv2.dilate(largest.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & (largest | (labels == 0))
    return np.where(reach, alpha, 0).astype(np.float32)


def leak_map(pictures: Sequence[np.ndarray], key: Colour) -> tuple[np.ndarray, float]:
    """Where pictures on the key colour are neither car nor key.

    Args:
        pictures: of one size, (H, W, 3) in [0, 255].
        key: the key colour.

    Returns:
        (H, W) float32 in [0, 1], the mean over the pictures of 1 - |2 alpha - 1|, which is 0 where a pixel is clearly
        the one or the other and 1 where it is half of both; and the mean of that over all pixels.
    """
    undecided = [1 - np.abs(2 * key_out(picture, key)[1] - 1) for picture in pictures]
    mean: np.ndarray = np.stack(undecided).mean(axis=0, dtype=np.float32)
    return mean, float(mean.mean())
