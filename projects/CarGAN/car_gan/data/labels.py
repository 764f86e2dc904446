"""What a conditional GAN is told of each crop: its main colour, or what its manifest says."""

from collections import Counter

import cv2
import numpy as np

from car_gan.colour import Colour
from gan_plugin.errors import UserError

from .crop_dataset import CropDataset, has_ground
from .matting import key_out

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
        UserError: the manifest has no such field, or there is none; or "colour" is asked of crops that cannot be told
            from their ground.
    """
    if kind == "colour":
        if crops.channels == 3 and not has_ground(crops):
            raise UserError(
                f"The cars in {crops.folder} cannot be told from what they lie on, so MODEL.LABEL.KIND cannot be "
                "'colour'; set it to a field of manifest.jsonl, or build the crops on a key colour."
            )
        pictures = (crops.pixels(index).permute(1, 2, 0).numpy() for index in range(len(crops)))
        return [main_colour(picture, crops.key) for picture in pictures]
    for record in crops.records:
        if kind not in record:
            raise UserError(
                f"MODEL.LABEL.KIND is '{kind}', but {crops.folder} says nothing of that for {record['file']}; set "
                f"it to colour, or to a field of manifest.jsonl: {', '.join(record)}."
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
    inside = colours[alpha >= min(_SOLID, alpha.max())]
    hue, saturation, value = cv2.cvtColor(inside[None] / 255, cv2.COLOR_RGB2HSV)[0].T
    grey = saturation < _GREY_SATURATION
    hues = np.array([name for _, name in _HUES])[np.searchsorted([end for end, _ in _HUES], hue)]
    names = np.select([value < _BLACK, grey & (value > _WHITE), grey], ["black", "white", "grey"], hues)
    return Counter(names.tolist()).most_common(1)[0][0]
