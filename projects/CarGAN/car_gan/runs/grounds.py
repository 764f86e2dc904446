"""Cars taken off the key colour before they are scored.

The flat key colour is the same in real and generated images, so that it raises their agreement, and it is like nothing
Inception has seen. Both kinds are therefore keyed in the same way and put on the same other ground.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch

from car_gan.colour import Colour
from car_gan.data.crop_dataset import read_records
from car_gan.data.matting import key_out
from car_gan.data.pictures import read_picture, resize
from gan_plugin.errors import UserError
from gan_plugin.evaluation.image_features import Extractor

GREY = "grey"
_GREY_VALUE = 128
# evenly drawn from a folder: reading thousands of street scenes would take longer than scoring
_MOST = 200


class OnGround:
    """An extractor that sees cars on another ground than the key colour, and says so in its name."""

    def __init__(self, inner: Extractor, background: str, key: Colour, size: int) -> None:
        """
        Args:
            inner: the network.
            background: "grey", or a folder of pictures, of which each gives its central square.
            key: the colour that the images lie on.
            size: side of the images in pixels.

        Raises:
            UserError: there is no such folder, it holds no pictures, one is broken, or the key is too grey to be keyed.
        """
        self._inner, self._key = inner, key
        self._grounds = _grounds(background, size)  # (K, S, S, 3)
        place = GREY if background == GREY else Path(background).resolve().name
        self.name = f"{inner.name}, of cars keyed and put on {place}"
        if background != GREY:
            # other pictures in a folder of the same name give other scores
            digest = hashlib.sha256(self._grounds.tobytes()).hexdigest()[:16]
            self.name += f" ({len(self._grounds)} pictures, SHA-256 {digest})"
        self.label = f"{inner.label}_on_{place}"

    def place_cars(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3 or 4, S, S) bytes over the key colour -> (N, 3, S, S) bytes over the ground; the fourth is alpha."""
        pictures = images.cpu().permute(0, 2, 3, 1).numpy()
        placed = [self._place(picture, self._grounds[i % len(self._grounds)]) for i, picture in enumerate(pictures)]
        return torch.from_numpy(np.stack(placed)).permute(0, 3, 1, 2).contiguous()

    def _place(self, picture: np.ndarray, ground: np.ndarray) -> np.ndarray:
        if picture.shape[-1] == 4:
            alpha = picture[..., 3:].astype(np.float32) / 255
            # over the key already, so only the ground has to be exchanged
            mixed = picture[..., :3] + (1 - alpha) * (ground - np.asarray(self._key, np.float32))
        else:
            colours, flat = key_out(picture, self._key)
            alpha = flat[..., None]
            mixed = alpha * colours + (1 - alpha) * ground
        return np.rint(mixed).clip(0, 255).astype(np.uint8)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3 or 4, S, S) bytes -> what the network says of the cars on their new ground."""
        return self._inner(self.place_cars(images))


def _grounds(background: str, size: int) -> np.ndarray:
    if background == GREY:
        return np.full((1, size, size, 3), _GREY_VALUE, np.float32)
    if not Path(background).is_dir():
        raise UserError(f"TEST.BACKGROUND is {background!r}; set it to grey, to a folder of pictures, or to nothing.")
    names = [record["file"] for record in read_records(Path(background))]
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(_MOST, len(names))).astype(int)]
    return np.stack([_central_square(Path(background) / name, size) for name in chosen]).astype(np.float32)


def _central_square(path: Path, size: int) -> np.ndarray:
    pixels = read_picture(path, 3, (_GREY_VALUE, _GREY_VALUE, _GREY_VALUE))
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return resize(pixels[top : top + side, left : left + side], (size, size))
