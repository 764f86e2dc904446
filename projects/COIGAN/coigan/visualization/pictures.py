"""Pictures of what is in a data set and of what the loader does with it (thesis figures 4.7 to 4.15)."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from coigan.data.objects import CutOut
from coigan.data.placer import Placement
from coigan.data.prepare import tiles
from coigan.data.regions import Region
from coigan.data.samples import MaskNoise, soften
from coigan.visualization.grid import CLASS_COLOURS

_ALPHA = 0.8
_GAP = 4


def colour_of(label: int) -> tuple[int, int, int]:
    """RGB of a class; classes beyond the sixth repeat the colours."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def outlined(pixels: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
    """The image with the outline and the box of each object."""
    result = pixels.copy()
    for region in regions:
        parts, _ = cv2.findContours(region.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        x0, y0, x1, y1 = region.box
        cv2.drawContours(result, parts, -1, colour_of(region.label), 1, offset=(x0, y0))
        cv2.rectangle(result, (x0 - 2, y0 - 2), (x1 + 2, y1 + 2), colour_of(region.label), 1)
    return result


def tiled(pixels: np.ndarray, tile: int) -> np.ndarray:
    """The image with the borders of its tiles, drawn a little inside, so that overlaps show (figure 4.9)."""
    result = pixels.copy()
    for number, (x, y) in enumerate(tiles(pixels.shape[0], pixels.shape[1], tile)):
        inset = 3 + 5 * (number % 2)
        corners = (x + inset, y + inset), (x + tile - 1 - inset, y + tile - 1 - inset)
        cv2.rectangle(result, *corners, colour_of(number % 2), 2)
    return result


def covered(cut: CutOut, label: int) -> np.ndarray:
    """A cut-out beside itself with everything but the object under the colour of its class."""
    assert cut.pixels is not None
    colour = np.array(colour_of(label)) * _ALPHA
    outside = (cut.pixels * (1 - _ALPHA) + colour).astype(np.uint8)
    return side_by_side([cut.pixels, np.where(cut.mask[..., None], cut.pixels, outside)])


def cropped(pixels: np.ndarray, region: Region) -> np.ndarray:
    """The box of an object, its last row and column included."""
    x0, y0, x1, y1 = region.box
    return pixels[y0 : y1 + 1, x0 : x1 + 1]


def side_by_side(pictures: Sequence[np.ndarray], height: int = 0) -> np.ndarray:
    """(H, W, 3) pictures in a row with white gaps; all scaled to `height`, or padded to the tallest for 0."""
    if height:
        pictures = [_to_height(picture, height) for picture in pictures]
    tallest = max(len(picture) for picture in pictures)
    padded = [
        cv2.copyMakeBorder(p, 0, tallest - len(p), 0, _GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for p in pictures
    ]
    return np.concatenate(padded, axis=1)[:, :-_GAP]


def _to_height(picture: np.ndarray, height: int) -> np.ndarray:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)


def placed(placement: Placement) -> np.ndarray:
    """Each class's canvas above its mask (figure 4.11)."""
    canvases = side_by_side(list(placement.canvases))
    masks = side_by_side([grey(mask) for mask in placement.masks])
    return np.concatenate([canvases, np.full((_GAP, *masks.shape[1:]), 255, np.uint8), masks])


def noise_steps(mask: np.ndarray, noise: MaskNoise, seed: int) -> np.ndarray:
    """A mask, its softened form, the noise, and the noise in the mask (figures 4.12 to 4.14)."""
    draw = torch.Generator().manual_seed(seed)
    one = torch.from_numpy(mask[None]).float()
    plain = MaskNoise(noise.mean, noise.std, "replace", noise.scales, 0)(torch.ones_like(one), draw)[0]
    noisy = noise(one, torch.Generator().manual_seed(seed))[0]
    return side_by_side([grey(step) for step in (mask, soften(one, noise.smooth)[0], _stretched(plain), noisy)])


def noise_scales(shape: tuple[int, ...], noise: MaskNoise, seed: int) -> np.ndarray:
    """The noise of each scale and their sum, each stretched to [0, 1] (figure 4.13)."""
    draw = torch.Generator().manual_seed(seed)
    one = torch.ones(1, *shape)
    parts = [MaskNoise(noise.mean, noise.std, "replace", (scale,), 0)(one, draw)[0] for scale in noise.scales]
    return side_by_side([grey(_stretched(part)) for part in (*parts, torch.stack(parts).sum(0))])


def sample_layout(sample: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Name of a tensor -> its channels in a row: three at a time as a colour picture, masks in grey (figure 4.15)."""
    rows = {}
    for name, tensor in sample.items():
        pictures = []
        colour = len(tensor) if name in ("base", "ref", "disc_input") else 3 if name == "gen_input" else 0
        pictures += [coloured(tensor[start : start + 3]) for start in range(0, colour, 3)]
        pictures += [grey(channel) for channel in tensor[colour:]]
        rows[name] = side_by_side(pictures)
    return rows


def coloured(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    return (image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)


def grey(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """(H, W) in [0, 1] -> (H, W, 3) uint8; what is beyond is cut off."""
    return np.repeat((np.asarray(values, np.float32).clip(0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


def _stretched(values: torch.Tensor) -> torch.Tensor:
    return (values - values.min()) / (values.max() - values.min()).clamp(min=1e-6)
