"""What a conditional GAN is told of each crop: its main colour, or what its manifest says."""

from collections import Counter

import cv2
import numpy as np

from car_gan.colour import Colour
from car_gan.compose.matting import key_out
from gan_plugin.errors import UserError

from .crop_dataset import CropDataset

# upper ends of hues in degrees; what is above the last one is red again
_HUES = ((20, "red"), (70, "yellow"), (170, "green"), (260, "blue"), (330, "purple"), (360, "red"))
_GREY_SATURATION, _BLACK, _WHITE = 0.2, 0.25, 0.75
# a pixel that is nearly the car's alone has its colour
_SOLID = 0.95


def labels_of(crops: CropDataset, kind: str) -> list[str]:
    """The label of every crop.

    Args:
        crops: to describe.
        kind: "colour" for `main_colour`, or a field of the manifest, such as "label", the class of the annotation,
            "city", which for Stanford Cars is the model, or one that you have added, such as a viewpoint.

    Raises:
        UserError: the manifest has no such field, or there is none.
    """
    if kind == "colour":
        pictures = (crops.pixels(index).permute(1, 2, 0).numpy() for index in range(len(crops)))
        return [main_colour(picture, crops.key) for picture in pictures]
    for record in crops.records:
        if kind not in record:
            raise UserError(
                f"MODEL.LABEL.KIND is '{kind}', but {crops.folder} says nothing of that for {record['file']}; set "
                "it to 'colour' or to a field of manifest.jsonl."
            )
    return [str(record[kind]) for record in crops.records]


def main_colour(picture: np.ndarray, key: Colour) -> str:
    """The name of the colour that most pixels of the car have: a hue, or "black", "grey" or "white".

    Args:
        picture: (H, W, 3 or 4) uint8 over the key colour; where there is alpha, it says what is car.
        key: the key colour.
    """
    colours = picture[..., :3].astype(np.float32)
    alpha = picture[..., 3] / 255 if picture.shape[-1] == 4 else key_out(colours, key)[1]
    inside = colours[alpha >= _SOLID] if (alpha >= _SOLID).any() else colours.reshape(-1, 3)
    hue, saturation, value = cv2.cvtColor(inside[None] / 255, cv2.COLOR_RGB2HSV)[0].T
    names = [_name(*pixel) for pixel in zip(hue, saturation, value, strict=True)]
    return Counter(names).most_common(1)[0][0]


def _name(hue: float, saturation: float, value: float) -> str:
    if value < _BLACK:
        return "black"
    if saturation < _GREY_SATURATION:
        return "white" if value > _WHITE else "grey"
    return next(name for end, name in _HUES if hue <= end)
