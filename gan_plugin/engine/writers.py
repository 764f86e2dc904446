"""Pictures of real and fake masks as files, for those who do not run TensorBoard."""

import os

import numpy as np
from detectron2.utils.events import EventWriter, get_event_storage
from PIL import Image

from gan_plugin.modeling.meta_arch import SAMPLE_PICTURE

_ZOOM = 3


class SamplePictureWriter(EventWriter):
    """Writes the model's pictures of masks as `<directory>/iter_<iteration>.png`.

    It must come before TensorboardXWriter, which empties the storage's list of pictures.
    """

    def __init__(self, directory: str) -> None:
        """
        Args:
            directory: made when the first picture comes.
        """
        self._directory = directory
        self._last = -1

    def write(self) -> None:
        for name, picture, iteration in get_event_storage()._vis_data:
            if name != SAMPLE_PICTURE or iteration <= self._last:
                continue
            self._last = iteration
            os.makedirs(self._directory, exist_ok=True)
            pixels = (np.asarray(picture) * 255).round().astype(np.uint8).transpose(1, 2, 0)
            image = Image.fromarray(pixels)
            zoomed = image.resize((image.width * _ZOOM, image.height * _ZOOM), Image.Resampling.NEAREST)
            zoomed.save(os.path.join(self._directory, f"iter_{iteration:07d}.png"))
