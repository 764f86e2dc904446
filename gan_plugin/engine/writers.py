"""What a run writes of itself: results in tables and metrics.json, pictures of masks, the state of the game."""

import json
import logging
import math
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils.events import EventWriter, get_event_storage
from PIL import Image
from tabulate import tabulate

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


def finite_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Nested results as {"segm/AP": 31.2, ...} without what is not defined, such as the AP of an absent size."""
    flat = {name: float(value) for name, value in flatten_results_dict(results).items()}
    return {name: value for name, value in flat.items() if math.isfinite(value)}


def results_table(results: Mapping[str, Any]) -> str:
    """One row a metric in the results' order, "n/a" where it is not defined."""
    rows = [
        (name, f"{value:.2f}" if math.isfinite(value) else "n/a")
        for name, value in flatten_results_dict(results).items()
    ]
    return tabulate(
        rows, headers=["metric", "value"], tablefmt="github", disable_numparse=True, colalign=("left", "right")
    )


def log_results(results: Mapping[str, Any]) -> None:
    """Log the table."""
    logging.getLogger(__name__).info("Evaluation results:\n" + results_table(results))


def append_metrics(output_dir: str, results: Mapping[str, Any], iteration: int) -> None:
    """Add the defined metrics to OUTPUT_DIR/metrics.json, in the format of Detectron2's JSONWriter.

    Args:
        output_dir: an existing folder.
        results: nested results of an evaluation.
        iteration: of the weights that were evaluated.
    """
    line = json.dumps({**finite_metrics(results), "iteration": iteration}, sort_keys=True)
    with open(os.path.join(output_dir, "metrics.json"), "a", encoding="utf-8") as file:
        file.write(line + "\n")
