"""FID, IS and the other scores of a generator against the crops."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from detectron2.utils import comm
from fvcore.common.config import CfgNode
from torch import nn

from car_gan.data.crop_dataset import CropDataset
from car_gan.game import Latents
from gan_plugin.errors import UserError
from gan_plugin.evaluation.image_scores import (
    FEWEST,
    Extractor,
    Features,
    ImageScores,
    as_bytes,
    build_extractor,
    cached_features,
    extract,
    score,
)
from gan_plugin.files import write_whole

from .grounds import OnGround

SCORES = "scores.json"


class Scorer:
    """Scores generators by the same latents against the same crops, whose features are kept in a file."""

    def __init__(self, cfg: CfgNode, crops: CropDataset, cache: str | os.PathLike, background: str = "") -> None:
        """
        Args:
            cfg: with TEST, of `load_config`.
            crops: the real images; at most TEST.SAMPLES of them, drawn with TEST.SEED, are looked at.
            cache: folder for their features.
            background: that cars are taken off the key colour for, as in `OnGround`; "" to score images as they are.

        Raises:
            UserError: there are too few images for scores, Inception's weights cannot be used, or the features cannot
                be written.
        """
        self._cfg = cfg
        self._cache = cache
        self._latents = Latents.of(cfg)
        plain = build_extractor(cfg.TEST.INCEPTION, cfg.MODEL.DEVICE)
        self._with_alpha = bool(background)
        self.extractor: Extractor = OnGround(plain, background, crops.key, crops.size) if background else plain
        count = min(len(crops), cfg.TEST.SAMPLES)
        if count < FEWEST:
            raise UserError(
                f"Scores need {FEWEST} crops and TEST.SAMPLES {FEWEST} or more; there are {len(crops)} crops and "
                f"TEST.SAMPLES is {cfg.TEST.SAMPLES}."
            )
        order = torch.randperm(len(crops), generator=torch.Generator().manual_seed(cfg.TEST.SEED))
        chosen = order[:count].sort().values.tolist()
        # a batch's first image lies on the first ground
        key = f"{crops.fingerprint()} {count} {cfg.TEST.SEED} {cfg.TEST.BATCH if background else ''}"
        self.real = cached_features(cache, key, self.extractor, self._reals(crops, chosen))

    def everything(self, crops: CropDataset) -> Features:
        """The features of all of `crops`, kept in the same folder."""
        indices = list(range(len(crops)))
        return cached_features(self._cache, f"{crops.fingerprint()} all", self.extractor, self._reals(crops, indices))

    def _reals(self, crops: CropDataset, indices: list[int]) -> Iterator[torch.Tensor]:
        # the colours are those over the key, so alpha may be left out
        channels = 4 if self._with_alpha else 3
        for start in range(0, len(indices), self._cfg.TEST.BATCH):
            part = indices[start : start + self._cfg.TEST.BATCH]
            yield torch.stack([crops.pixels(index)[:channels] for index in part])

    @torch.no_grad()
    def generated(self, generator: nn.Module, truncation: float = 0.0) -> Features:
        """The features of TEST.SAMPLES images of `generator`, which is put into evaluation mode meanwhile."""
        was_training = generator.training
        generator.eval()
        try:
            return extract(self.extractor, self._fakes(generator, truncation))
        finally:
            generator.train(was_training)

    def _fakes(self, generator: nn.Module, truncation: float) -> Iterator[torch.Tensor]:
        device = next(generator.parameters()).device
        z = self._latents.fixed(self._cfg.TEST.SAMPLES, device, self._cfg.TEST.SEED, truncation)
        for part in z.split(self._cfg.TEST.BATCH):
            yield as_bytes(generator(part), alpha=self._with_alpha)

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
