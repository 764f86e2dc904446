"""What a feature network sees in crops and in a generator's cars."""

import os
from collections.abc import Iterator

import torch
from fvcore.common.config import CfgNode
from torch import nn

from car_gan.data.crop_dataset import CropDataset
from car_gan.game import Latents
from gan_plugin.evaluation.image_features import (
    Extractor,
    Features,
    as_bytes,
    build_extractor,
    cached_features,
    extract,
)

from .grounds import OnGround


class CarFeatures:
    """Features of generators by the same latents, and of crops, which are kept in a file."""

    def __init__(self, cfg: CfgNode, crops: CropDataset, cache: str | os.PathLike, background: str = "") -> None:
        """
        Args:
            cfg: with TEST, of `load_config`.
            crops: the real images.
            cache: folder for their features.
            background: that cars are taken off the key colour for, as in `OnGround`; "" to see images as they are.

        Raises:
            UserError: the feature network's weights cannot be used.
        """
        self._cfg, self._cache, self._background = cfg, cache, background
        self._latents = Latents.of(cfg)
        plain = build_extractor(cfg.TEST.INCEPTION, cfg.MODEL.DEVICE, cfg.TEST.FEATURES)
        self.extractor: Extractor = OnGround(plain, background, crops.key, crops.size) if background else plain

    def some(self, crops: CropDataset, count: int) -> Features:
        """The features of `count` of `crops`, drawn with TEST.SEED; errors as in `cached_features`."""
        order = torch.randperm(len(crops), generator=torch.Generator().manual_seed(self._cfg.TEST.SEED))
        chosen = order[:count].sort().values.tolist()
        # a batch's first image lies on the first ground
        batch = self._cfg.TEST.BATCH if self._background else ""
        key = f"{crops.fingerprint()} {count} {self._cfg.TEST.SEED} {batch}"
        return cached_features(self._cache, key, self.extractor, self._reals(crops, chosen))

    def everything(self, crops: CropDataset) -> Features:
        """The features of all of `crops`; errors as in `cached_features`."""
        indices = list(range(len(crops)))
        return cached_features(self._cache, f"{crops.fingerprint()} all", self.extractor, self._reals(crops, indices))

    def _reals(self, crops: CropDataset, indices: list[int]) -> Iterator[torch.Tensor]:
        # the colours are those over the key, so alpha may be left out
        channels = 4 if self._background else 3
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
            yield as_bytes(generator(part), alpha=bool(self._background))
