"""The generated cars, taken off their ground."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode

from car_gan.crops.dataset import read_records
from car_gan.matting import key_out, largest_blob, unmix
from car_gan.pictures import GREEN, checked_colour, noted_key, read_picture
from gan_plugin.errors import UserError, as_user_error

# alpha below this does not count for the size of the car
_FAINT = 0.02


@dataclass(frozen=True)
class Sprite:
    """One car: colours (h, w, 3) float32 in [0, 255] and alpha (h, w) float32 in [0, 1], cut to where it is."""

    name: str
    colours: np.ndarray
    alpha: np.ndarray


class SampleBank:
    """Samples of a generator: a folder of PNG files, or a .pt file with (N, C, H, W) in [-1, 1]; C is 3 or 4.

    With 3 channels they lie on the key colour and are keyed; with 4 the last one is alpha, and the colours are those
    over the key colour, as `CropDataset` gives them.
    """

    def __init__(self, place: str | Path, options: CfgNode) -> None:
        """
        Args:
            place: of the samples.
            options: the node MATTING of `compose_defaults`.

        Raises:
            UserError: there are none, or they are not of that form.
        """
        self._place, self._options = Path(place), options
        self.key = checked_colour(options.KEY or noted_key(self._place) or GREEN)
        if not 0 <= options.LOW < options.HIGH <= 1:
            raise UserError(f"MATTING.LOW {options.LOW} and HIGH {options.HIGH} must rise from 0 to 1.")
        self._pictures: np.ndarray | None = None
        if self._place.is_file():
            self._pictures = _read_tensor(self._place)
            self.names = [f"{self._place.name}[{index}]" for index in range(len(self._pictures))]
        else:
            self.names = [record["file"] for record in read_records(self._place)]

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, index: int) -> np.ndarray:
        """Sample `index` as it is: (H, W, 3 or 4) uint8.

        Raises:
            UserError: the file is broken.
        """
        if self._pictures is not None:
            return self._pictures[index]
        return read_picture(self._place / self.names[index], None, self.key)

    def sprite(self, index: int) -> Sprite | str:
        """The car of sample `index`, or the reason why it is of no use: "empty", "full" or "fuzzy".

        Raises:
            UserError: the file is broken.
        """
        pixels, options = self.pixels(index), self._options
        if pixels.shape[-1] == 4:
            alpha = pixels[..., 3].astype(np.float32) / 255
            colours = unmix(pixels[..., :3].astype(np.float32), alpha, self.key)
        else:
            colours, alpha = key_out(pixels, self.key, options.LOW, options.HIGH)
        alpha = largest_blob(alpha)
        cover = float((alpha >= 0.5).mean())
        if cover < options.MIN_COVER or cover == 0:
            return "empty"
        if cover > options.MAX_COVER:
            return "full"
        seen = alpha > _FAINT
        if float((seen & (alpha < 0.95)).sum() / seen.sum()) > options.MAX_FUZZY:
            return "fuzzy"
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return Sprite(self.names[index], colours[part], alpha[part])

    def on_key(self, most: int) -> list[np.ndarray]:
        """Up to `most` of the samples that lie on the key colour and are of the first one's size: (H, W, 3) uint8."""
        found: list[np.ndarray] = []
        for index in range(min(len(self), most)):
            pixels = self.pixels(index)
            if pixels.shape[-1] == 3 and (not found or pixels.shape == found[0].shape):
                found.append(pixels)
        return found


def _read_tensor(path: Path) -> np.ndarray:
    # the reader raises nearly anything for a file that is not its own
    with as_user_error(f"The samples {path} cannot be read", "save a tensor there", Exception):
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 4 or tensor.shape[1] not in (3, 4) or not tensor.numel():
        raise UserError(f"The samples {path} are not a tensor (N, 3 or 4, H, W) of one or more; save one there.")
    if not tensor.is_floating_point() or not tensor.isfinite().all() or tensor.abs().max() > 1.01:
        raise UserError(f"The samples {path} are not finite values from -1 to 1; save what the generator gives.")
    return tensor.float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
