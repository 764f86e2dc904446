"""Samples in the form that a discriminator sees them."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from detectron2.layers import ROIAlign

from gan_plugin.layers.multi_level_prroi_pool import MultiLevelPrRoIPool
from gan_plugin.layers.straight_through import straight_through_binarize

from .samples import BoxSamples, MaskSamples, RealFakePair


class Presenter(Protocol):
    """Makes a discriminator's input from the samples of its player."""

    @property
    def background(self) -> float:
        """The value of "nothing here" in the input."""

    @property
    def wants_features(self) -> bool:
        """Whether samples must bring the features below them."""

    @property
    def wants_pictures(self) -> bool:
        """Whether samples must bring the images."""

    def __call__(self, samples: Any) -> RealFakePair: ...


@dataclass(frozen=True)
class PixelMasks:
    """Masks (R, 1, S, S) in [-1, 1] (thesis 5.4.1, 5.6.1, 5.7).

    Attributes:
        size: side S of the input in pixels.
        fake: "soft" or "straight_through" (binarised forward, the probabilities' gradient backward).
    """

    size: int
    fake: str = "soft"
    background: float = -1.0
    wants_features: bool = False
    wants_pictures: bool = False

    def __call__(self, samples: MaskSamples) -> RealFakePair:
        # Real and fake take the same path, or the discriminator would learn to see the resampling.
        real, fake = (_resize(masks, self.size) * 2 - 1 for masks in (samples.truth, drawn_masks(samples, self.fake)))
        return RealFakePair(real, fake, samples)


@dataclass(frozen=True)
class MaskedImages:
    """The mask in [0, 1], and the RGB crop of its box in [-1, 1] times the mask: (R, 4, S, S).

    Attributes:
        size, fake: as for PixelMasks.
    """

    size: int
    fake: str = "soft"
    background: float = 0.0
    wants_features: bool = False
    wants_pictures: bool = True

    def __call__(self, samples: MaskSamples) -> RealFakePair:
        crops = crop_pictures(samples, self.size).to(samples.logits.dtype) * 2 - 1
        masks = (_resize(mask, self.size) for mask in (samples.truth, drawn_masks(samples, self.fake)))
        real, fake = (torch.cat([mask, crops * mask], dim=1) for mask in masks)
        return RealFakePair(real, fake, samples)


def crop_pictures(samples: MaskSamples, side: int) -> torch.Tensor:
    """(R, 3, side, side): the images in the boxes of the samples, which bring them; RGB with values in [0, 1]."""
    assert samples.pictures is not None
    align = ROIAlign((side, side), 1.0, 0, aligned=True)
    return align(samples.pictures, samples.rois.to(samples.pictures.dtype))


class MaskedFeatures:
    """RoI features (R, C, S, S) times the mask (Le et al. 2020, arXiv 2010.13757, figure 3); the features detached."""

    background = 0.0
    wants_features = True
    wants_pictures = False

    def __init__(self, size: int, pooler: MultiLevelPrRoIPool, fake: str = "soft") -> None:
        """
        Args:
            size: side S of the input in cells.
            pooler: pools the RoIs' features to S x S.
            fake: as for PixelMasks.
        """
        self.size = size
        self.pooler = pooler
        self.fake = fake

    def __call__(self, samples: MaskSamples) -> RealFakePair:
        with torch.no_grad():
            features = self.pooler(samples.features, samples.rois).to(samples.logits.dtype)
        masks = (samples.truth, drawn_masks(samples, self.fake))
        real, fake = (features * _resize(mask, self.size) for mask in masks)
        return RealFakePair(real, fake, samples)


class BoxFeatures:
    """Features (R, C, S, S) inside of a box, pooled exactly, so that they pass gradients to its corners
    (Le et al. 2020, figure 2)."""

    background = 0.0
    wants_features = True
    wants_pictures = False

    def __init__(self, pooler: MultiLevelPrRoIPool) -> None:
        """
        Args:
            pooler: pools the boxes' features to S x S.
        """
        self.pooler = pooler

    def __call__(self, samples: BoxSamples) -> RealFakePair:
        boxes = torch.cat([samples.truth.to(samples.predicted.dtype), samples.predicted])
        images = samples.images[:, None].to(boxes.dtype).repeat(2, 1)
        # at once, since most of the time goes into what does not depend on how many there are
        real, fake = self.pooler(samples.features, torch.cat([images, boxes], dim=1)).chunk(2)
        return RealFakePair(real.detach(), fake, samples)


def drawn_masks(samples: MaskSamples, form: str) -> torch.Tensor:
    """(R, M, M) predicted masks in [0, 1], `form` "soft" or "straight_through", with the gradient of the logits."""
    probabilities = samples.logits.sigmoid()
    return straight_through_binarize(probabilities) if form == "straight_through" else probabilities


def _resize(masks: torch.Tensor, size: int) -> torch.Tensor:
    """(R, M, M) to (R, 1, size, size)."""
    if masks.shape[-1] == size:
        return masks[:, None]
    return F.interpolate(masks[:, None], size=(size, size), mode="bilinear", align_corners=False)
