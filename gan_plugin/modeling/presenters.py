"""How samples are shown to a discriminator: in the form that it sees, augmented alike, and as a picture for readers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ROIAlign, ShapeSpec
from detectron2.utils.registry import Registry

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError
from gan_plugin.layers.prroi_pool import MultiLevelPrRoIPool

from .samples import BoxSamples, MaskSamples, RealFakePair

Levels = Callable[[], Sequence[ShapeSpec]]
# Zhao et al. 2020, arXiv 2006.10738, appendix: shifts up to 1/8 of the side, holes of half the side.
_MOST_SHIFT = 1 / 8
_HOLE = 1 / 2
_SEPARATOR = 0.5


def straight_through_binarize(probabilities: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    """Zeros and ones forward, the identity's gradient backward (Bengio et al. 2013, arXiv 1308.3432).

    Args:
        probabilities: any shape, values in [0, 1].
        threshold: values above it become 1.

    Returns:
        A tensor of the same shape and dtype with values 0 and 1, whose gradient is handed to `probabilities` unchanged.
    """
    hard = (probabilities > threshold).to(probabilities.dtype)
    # The bracket is exactly zero, so rounding cannot disturb the zeros and ones.
    return hard + (probabilities - probabilities.detach())


PRESENTER_REGISTRY: Registry = Registry("PRESENTER")
PRESENTER_REGISTRY.__doc__ = """
What a discriminator can be shown: see `Presenter`. A discriminator names one of these classes in its attribute `sees`;
register your own with `@PRESENTER_REGISTRY.register()`.
"""


class Presenter(Protocol):
    """Makes a discriminator's input from the samples of its player."""

    # "MASK" or "BOX": whose samples it takes
    player: str
    # whether it shows a mask always alike, so that a memory may hold what was shown while the model goes on learning
    lasts: bool

    @classmethod
    def from_config(cls, cfg: CfgNode, levels: Levels) -> "tuple[Presenter, ShapeSpec]":
        """The presenter for `cfg.MODEL.GAN[player]`, and the shape of what it shows.

        Args:
            cfg: with the plugin's keys.
            levels: gives channels and stride of the features that samples bring, if it looks at them.
        """

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


@PRESENTER_REGISTRY.register()
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
    player: ClassVar[str] = "MASK"
    lasts: ClassVar[bool] = True

    @classmethod
    def from_config(cls, cfg: CfgNode, levels: Levels) -> "tuple[PixelMasks, ShapeSpec]":
        size = cfg.MODEL.GAN.MASK.INPUT_SIZE
        return cls(size, _form(cfg)), ShapeSpec(channels=1, height=size, width=size)

    def __call__(self, samples: MaskSamples) -> RealFakePair:
        # Real and fake take the same path, or the discriminator would learn to see the resampling.
        real, fake = (_resize(masks, self.size) * 2 - 1 for masks in (samples.truth, drawn_masks(samples, self.fake)))
        return RealFakePair(real, fake, samples)


@PRESENTER_REGISTRY.register()
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
    player: ClassVar[str] = "MASK"
    lasts: ClassVar[bool] = True

    @classmethod
    def from_config(cls, cfg: CfgNode, levels: Levels) -> "tuple[MaskedImages, ShapeSpec]":
        size = cfg.MODEL.GAN.MASK.INPUT_SIZE
        return cls(size, _form(cfg)), ShapeSpec(channels=4, height=size, width=size)

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


@PRESENTER_REGISTRY.register()
class MaskedFeatures:
    """RoI features (R, C, S, S) times the mask (Le et al. 2020, arXiv 2010.13757, figure 3); the features detached."""

    player = "MASK"
    lasts = False
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

    @classmethod
    def from_config(cls, cfg: CfgNode, levels: Levels) -> "tuple[MaskedFeatures, ShapeSpec]":
        size = cfg.MODEL.GAN.MASK.INPUT_SIZE
        pooler, shape = _pooler(cfg, size, levels())
        return cls(size, pooler, _form(cfg)), shape

    def __call__(self, samples: MaskSamples) -> RealFakePair:
        with torch.no_grad():
            features = self.pooler(samples.features, samples.rois).to(samples.logits.dtype)
        masks = (samples.truth, drawn_masks(samples, self.fake))
        real, fake = (features * _resize(mask, self.size) for mask in masks)
        return RealFakePair(real, fake, samples)


@PRESENTER_REGISTRY.register()
class BoxFeatures:
    """Features (R, C, S, S) inside of a box, pooled exactly, so that they pass gradients to its corners
    (Le et al. 2020, figure 2)."""

    player = "BOX"
    lasts = False
    background = 0.0
    wants_features = True
    wants_pictures = False

    def __init__(self, pooler: MultiLevelPrRoIPool) -> None:
        """
        Args:
            pooler: pools the boxes' features to S x S.
        """
        self.pooler = pooler

    @classmethod
    def from_config(cls, cfg: CfgNode, levels: Levels) -> "tuple[BoxFeatures, ShapeSpec]":
        pooler, shape = _pooler(cfg, cfg.MODEL.GAN.BOX.INPUT_SIZE, levels())
        return cls(pooler), shape

    def __call__(self, samples: BoxSamples) -> RealFakePair:
        boxes = torch.cat([samples.truth.to(samples.predicted.dtype), samples.predicted])
        images = samples.images[:, None].to(boxes.dtype).repeat(2, 1)
        # at once, since most of the time goes into what does not depend on how many there are
        real, fake = self.pooler(samples.features, torch.cat([images, boxes], dim=1)).chunk(2)
        return RealFakePair(real.detach(), fake, samples)


def _form(cfg: CfgNode) -> str:
    return check_choice("MODEL.GAN.MASK.FAKE", cfg.MODEL.GAN.MASK.FAKE)


def _pooler(cfg: CfgNode, size: int, levels: Sequence[ShapeSpec]) -> tuple[MultiLevelPrRoIPool, ShapeSpec]:
    assignment = check_choice("MODEL.GAN.ROI_POOLING", cfg.MODEL.GAN.ROI_POOLING)
    pooler = MultiLevelPrRoIPool(size, [1 / level.stride for level in levels], assignment)
    return pooler, ShapeSpec(channels=levels[0].channels, height=size, width=size)


def drawn_masks(samples: MaskSamples, form: str) -> torch.Tensor:
    """(R, M, M) predicted masks in [0, 1], `form` "soft" or "straight_through", with the gradient of the logits."""
    probabilities = samples.logits.sigmoid()
    return straight_through_binarize(probabilities) if form == "straight_through" else probabilities


def _resize(masks: torch.Tensor, size: int) -> torch.Tensor:
    """(R, M, M) to (R, 1, size, size)."""
    if masks.shape[-1] == size:
        return masks[:, None]
    return F.interpolate(masks[:, None], size=(size, size), mode="bilinear", align_corners=False)


class DiscriminatorAugment:
    """Differentiable augmentation (DiffAugment; Zhao et al. 2020, arXiv 2006.10738) and Gaussian instance noise
    (Sonderby et al. 2017, arXiv 1610.04490), drawn anew for every sample and every call.

    Of the paper's policies "translation" and "cutout" make sense for a mask, "colour" only for an image; "flip", left
    to right, is ours.
    """

    def __init__(self, policy: str = "", noise: float = 0.0, background: float | torch.Tensor = 0.0) -> None:
        """
        Args:
            policy: names of `POLICIES`, separated by commas; "" for none.
            noise: standard deviation of the noise, 0 for none.
            background: the value that fills what an augmentation uncovers; a tensor (1, C, 1, 1) for a colour.

        Raises:
            UserError: a policy is unknown; the sentence lists the known.
        """
        names = [name.strip() for name in policy.split(",") if name.strip()]
        for name in names:
            if name not in POLICIES:
                raise UserError(
                    f"MODEL.GAN.DIFFAUG is {policy!r}, but {name!r} is unknown; name some of {', '.join(POLICIES)}, "
                    'separated by commas, or "" for none.'
                )
        self.policies = [POLICIES[name] for name in names]
        self.noise = noise
        self.background = background

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """(R, C, S, S) to the same shape, differentiable."""
        if len(samples):
            background = self.background
            if isinstance(background, torch.Tensor):
                background = background.to(samples)
            for augment in self.policies:
                # a colour has no background to leave alone
                ground = 0.0 if augment is colour else background
                samples = augment(samples - ground) + ground
        return samples + self.noise * torch.randn_like(samples) if self.noise > 0 else samples

    @property
    def is_idle(self) -> bool:
        """Whether it leaves everything as it is."""
        return not self.policies and self.noise <= 0

    def alike(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, C, S, S) twice: real and fake of a pair are augmented by the same draws, with noise of their own."""
        if not self.is_idle:
            real, fake = self(torch.cat([real, fake], dim=1)).chunk(2, dim=1)
        return real, fake


def translate(samples: torch.Tensor) -> torch.Tensor:
    """Shift each sample by up to an eighth of its side along either axis; zeros move in."""
    side = samples.shape[-1]
    most = round(side * _MOST_SHIFT)
    padded = F.pad(samples, (most,) * 4)
    first = torch.randint(0, 2 * most + 1, (2, len(samples)), device=samples.device)
    window = torch.arange(side, device=samples.device)
    rows, columns = (first[:, :, None] + window).unbind()  # (R, S) each
    index = torch.arange(len(samples), device=samples.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(samples: torch.Tensor) -> torch.Tensor:
    """Set a square of half the side to zero, anywhere, also partly outside."""
    side = samples.shape[-1]
    hole = round(side * _HOLE)
    centre = torch.randint(0, side + (1 - hole % 2), (2, len(samples), 1), device=samples.device)
    distance = torch.arange(side, device=samples.device) - centre + hole // 2
    rows, columns = ((distance >= 0) & (distance < hole)).unbind()  # (R, S) each
    return samples * ~(rows[:, None, :, None] & columns[:, None, None, :])


def flip(samples: torch.Tensor) -> torch.Tensor:
    """Mirror half of the samples left to right."""
    mirrored = torch.rand(len(samples), 1, 1, 1, device=samples.device) < 0.5
    return torch.where(mirrored, samples.flip(-1), samples)


def colour(samples: torch.Tensor) -> torch.Tensor:
    """Change brightness (by up to 0.5 in [-1, 1]), saturation (0 to 2 times) and contrast (0.5 to 1.5 times) of each.

    Only the first three of its channels; a fourth one, alpha, stays.
    """
    pixels, rest = samples[:, :3], samples[:, 3:]
    brightness, saturation, contrast = torch.rand(3, len(samples), 1, 1, 1, device=samples.device).unbind()
    pixels = pixels + brightness - 0.5
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = (pixels - grey) * (2 * saturation) + grey
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = (pixels - mean) * (0.5 + contrast) + mean
    return torch.cat([pixels, rest], dim=1)


POLICIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "translation": translate,
    "cutout": cut_out,
    "flip": flip,
    "colour": colour,
}


def sample_grid(samples: MaskSamples, columns: int = 16) -> torch.Tensor:
    """Annotated masks above their predictions, side by side.

    Args:
        samples: R masks of side M.
        columns: at most so many of them, evenly chosen.

    Returns:
        (3, 2M + 1, K(M + 1) - 1) on the CPU, values in [0, 1], K = min(R, columns), with a grey line between masks.
    """
    count = min(len(samples), columns)
    chosen = torch.linspace(0, len(samples) - 1, count, device=samples.logits.device).round().long()
    rows = [samples.truth[chosen], samples.logits.detach()[chosen].sigmoid()]
    strips = [_side_by_side(row.float().cpu()) for row in rows]
    line = torch.full((1, strips[0].shape[1]), _SEPARATOR)
    return torch.cat([strips[0], line, strips[1]])[None].repeat(3, 1, 1)


def _side_by_side(masks: torch.Tensor) -> torch.Tensor:
    padded = torch.nn.functional.pad(masks, (0, 1), value=_SEPARATOR)
    return torch.cat(list(padded), dim=1)[:, :-1]
