"""What Detectron2's writers leave out: pictures of masks as files, and the state of the game on the console."""

import logging
import os
from functools import partial

import numpy as np
from detectron2.utils.events import EventWriter, get_event_storage
from PIL import Image

from gan_plugin.files import write_whole
from gan_plugin.modeling.meta_arch import SAMPLE_PICTURE


class SamplePictureWriter(EventWriter):
    """Writes the model's pictures of samples as `<directory>/iter_<iteration>.png`.

    It must come before TensorboardXWriter, which empties the storage's list of pictures.
    """

    def __init__(self, directory: str, picture: str = SAMPLE_PICTURE, zoom: int = 3) -> None:
        """
        Args:
            directory: made when the first picture comes.
            picture: its name in the event storage.
            zoom: by what whole number it is enlarged.
        """
        self._directory = directory
        self._picture = picture
        self._zoom = zoom
        self._last = -1

    def write(self) -> None:
        for name, picture, iteration in get_event_storage()._vis_data:
            if name != self._picture or iteration <= self._last:
                continue
            self._last = iteration
            os.makedirs(self._directory, exist_ok=True)
            pixels = (np.asarray(picture) * 255).round().astype(np.uint8).transpose(1, 2, 0)
            image = Image.fromarray(pixels)
            zoomed = image.resize((image.width * self._zoom, image.height * self._zoom), Image.Resampling.NEAREST)
            path = os.path.join(self._directory, f"iter_{iteration:07d}.png")
            write_whole(path, partial(zoomed.save, format="PNG"), "Free some disk space and continue with --resume.")


class GamePrinter(EventWriter):
    """Logs verdicts, the discriminator's learning rate and both gradient norms below Detectron2's losses."""

    # "image" is the only one of a GAN whose samples are whole images
    _PLAYERS = ("mask", "box", "image")
    _OF_PLAYER = {"d_real": "D(real)", "d_fake": "D(fake)", "d_accuracy": "D accuracy", "balance": "balance"}
    _OF_BOTH = {"lr_disc": "lr_disc", "grad_norm/generator": "|grad G|", "grad_norm/discriminator": "|grad D|"}

    def write(self) -> None:
        latest = get_event_storage().latest()
        shown = {f"gan/{player}/{key}": label for player in self._PLAYERS for key, label in self._OF_PLAYER.items()}
        found = [key for key in shown if key in latest]
        if not found:
            return
        parts = []
        for player in self._PLAYERS:
            own = [f"{shown[key]} {latest[key][0]:.4g}" for key in found if key.startswith(f"gan/{player}/")]
            parts += [f"{player}: {', '.join(own)}"] if own else []
        parts += [f"{label}: {latest[key][0]:.4g}" for key, label in self._OF_BOTH.items() if key in latest]
        logging.getLogger(__name__).info(" iter: %d  %s", get_event_storage().iter, "  ".join(parts))
