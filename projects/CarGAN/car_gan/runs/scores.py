"""Scores of a generator against the crops: what a network sees in both, on the key colour and off it; and copies.

The flat key colour is the same in real and generated images, so that it raises their agreement, and it is like nothing
Inception has seen. Both kinds are therefore keyed in the same way and put on the same other ground.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from fvcore.common.config import CfgNode
from torch import nn

from car_gan.crops.dataset import CropDataset, read_records
from car_gan.game import Latents
from car_gan.matting import key_out
from car_gan.pictures import Colour, read_picture, resize
from gan_plugin.errors import UserError
from gan_plugin.evaluation.image_features import (
    Extractor,
    Features,
    as_bytes,
    build_extractor,
    cached_features,
    extract,
)
from gan_plugin.evaluation.image_scores import FEWEST, ImageScores, score
from gan_plugin.files import write_whole

GREY = "grey"
_GREY_VALUE = 128
# evenly drawn from a folder: reading thousands of street scenes would take longer than scoring
_MOST = 200
SCORES = "scores.json"
# a sample closer to a training crop than all but this share of the held-out crops are is taken for a copy
_QUANTILE = 0.01
_ALARM = 0.1
# held-out crops, of which the share above is one
_ENOUGH = 100
_ROWS = 2000


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
    write_whole(os.path.join(folder, SCORES), text)


@dataclass(frozen=True)
class Memorisation:
    """Distances in feature space, measured by those of real cars that were not trained on.

    Attributes:
        extractor: the feature network.
        samples, crops, held_out: counts.
        median_distance: of a sample to its nearest training crop.
        held_out_distance: of a held-out crop to its nearest training crop; NaN without held-out crops.
        copies: share of the samples that are nearer to a training crop than 99 % of the held-out crops are.
    """

    extractor: str
    samples: int
    crops: int
    held_out: int
    median_distance: float
    held_out_distance: float
    copies: float

    def sentence(self) -> str:
        """What it means for a release."""
        if not self.held_out:
            return "There are no held-out crops to compare with, so nothing is known of memorised crops."
        verdict = (
            "samples may repeat training crops: look at the neighbours before any release"
            if self.copies > _ALARM
            else "no sign of memorised crops"
        )
        if self.held_out < _ENOUGH:
            verdict += f" (a rough guess: {_ENOUGH} held-out crops would tell 1 % of them)"
        return (
            f"{self.copies:.1%} of the samples are nearer to a training crop than 99 % of the held-out "
            f"crops are (median distance {self.median_distance:.3g}, of held-out crops {self.held_out_distance:.3g}; "
            f"{self.samples} samples, {self.crops} training crops, {self.held_out} held out; "
            f"{self.extractor}): {verdict}."
        )

    def to_dict(self) -> dict[str, object]:
        """All numbers and the sentence."""
        return {**asdict(self), "verdict": self.sentence()}


def nearest(features: torch.Tensor, among: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, D), (M, D) -> distance (N,) to and index (N,) of the nearest of `among`."""
    parts = [torch.cdist(rows, among).min(dim=1) for rows in features.split(_ROWS)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def memorisation(fake: Features, train: Features, held_out: Features | None) -> Memorisation:
    """Compare generated images with the crops they were learnt from, and with crops nobody has learnt from."""
    distances, _ = nearest(fake.values, train.values)
    reference, copies = float("nan"), float("nan")
    if held_out is not None:
        apart, _ = nearest(held_out.values, train.values)
        reference = float(apart.median())
        copies = float((distances < apart.quantile(_QUANTILE)).float().mean())
    return Memorisation(
        fake.extractor,
        len(fake),
        len(train),
        0 if held_out is None else len(held_out),
        float(distances.median()),
        reference,
        copies,
    )
