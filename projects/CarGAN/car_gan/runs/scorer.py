"""FID, IS and the other scores of a generator against the crops."""

import json
import os
from dataclasses import asdict
from typing import Any

from detectron2.utils import comm
from fvcore.common.config import CfgNode
from torch import nn

from car_gan.data.crop_dataset import CropDataset
from gan_plugin.errors import UserError
from gan_plugin.evaluation.image_scores import FEWEST, ImageScores, score
from gan_plugin.files import write_whole

from .features import CarFeatures

SCORES = "scores.json"


class Scorer(CarFeatures):
    """Scores generators by the same latents against the same crops."""

    def __init__(self, cfg: CfgNode, crops: CropDataset, cache: str | os.PathLike, background: str = "") -> None:
        """
        Args:
            cfg, cache, background: as in `CarFeatures`.
            crops: the real images; at most TEST.SAMPLES of them, drawn with TEST.SEED, are looked at.

        Raises:
            UserError: there are too few images for scores, the feature network's weights cannot be used, or the
                features cannot be written.
        """
        super().__init__(cfg, crops, cache, background)
        count = min(len(crops), cfg.TEST.SAMPLES)
        if count < FEWEST:
            raise UserError(
                f"Scores need {FEWEST} crops and TEST.SAMPLES {FEWEST} or more; {crops.folder} has {len(crops)} "
                f"to train on, and TEST.SAMPLES is {cfg.TEST.SAMPLES}."
            )
        self.real = self.some(crops, count)

    def __call__(self, generator: nn.Module, truncation: float = 0.0) -> ImageScores:
        """All scores of `generator`."""
        return score(self.real, self.generated(generator, truncation))

    def while_training(self, game: Any, folder: str) -> dict[str, dict[str, float]]:
        """For `ImageLoop`: the scores, which also go to scores.json in `folder`; nothing but in the first process."""
        if not comm.is_main_process():
            return {}
        scores = self(game.generator)
        write_scores(folder, scores)
        return scores.results()


def write_scores(folder: str | os.PathLike, scores: ImageScores) -> None:
    """Write scores.json with the extractor's name and the counts into `folder`, which is made if need be."""
    os.makedirs(folder, exist_ok=True)
    text = json.dumps(asdict(scores), indent=1) + "\n"
    write_whole(os.path.join(folder, SCORES), lambda file: file.write(text.encode()), "Free some disk space.")
