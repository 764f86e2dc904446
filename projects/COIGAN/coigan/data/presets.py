"""COIGAN's lists of augmentations by name: for image and masks together, and for the image alone."""

from collections.abc import Callable

import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from gan_plugin.errors import UserError

from .augmentor import Augmentor, SomeOf

_BILINEAR = InterpolationMode.BILINEAR
# transforms of both, transforms of the image
Lists = tuple[list[nn.Module], list[nn.Module]]


class BackgroundChannel(nn.Module):
    """Sets the last mask channel where no other one is set, so that what a rotation uncovers is background."""

    def forward(self, *inputs: torch.Tensor) -> object:
        """Images pass unchanged."""
        outputs = tuple(_with_background(one) if isinstance(one, tv_tensors.Mask) else one for one in inputs)
        return outputs if len(outputs) > 1 else outputs[0]


def _with_background(mask: torch.Tensor) -> torch.Tensor:
    objects = mask[:-1]
    return tv_tensors.Mask(torch.cat([objects, (objects.amax(0, keepdim=True) == 0).to(objects.dtype)]))


def _flips() -> list[nn.Module]:
    return [v2.RandomVerticalFlip(0.5), v2.RandomHorizontalFlip(0.5)]


def _colours() -> list[nn.Module]:
    return [
        v2.RandomPosterize(bits=4, p=0.3),
        v2.RandomAutocontrast(p=0.3),
        v2.RandomSolarize(threshold=128, p=0.3),
        v2.RandomAdjustSharpness(2.0, p=0.3),
    ]


def _inpainting() -> Lists:
    turn = v2.RandomRotation(180, interpolation=_BILINEAR, expand=True)
    change = v2.RandomAffine(0, translate=(0.1, 0.1), scale=(0.7, 1.2), shear=3, interpolation=_BILINEAR)
    return [SomeOf([turn, change], 0, 2)], []


def _base() -> Lists:
    # the source flips horizontally twice, which is one flip; vertically was meant
    return _flips(), []


def _defects() -> Lists:
    erase = v2.RandomErasing(p=0.3, scale=(0.02, 0.13), ratio=(0.3, 3.3))
    return [*_flips(), v2.RandomRotation(25, interpolation=_BILINEAR)], [erase, *_colours()]


def _defects_without_erasing() -> Lists:
    both, image_only = _defects()
    return both, image_only[1:]


def _defects_background() -> Lists:
    both: list[nn.Module] = [*_flips(), v2.RandomRotation(35, interpolation=_BILINEAR), BackgroundChannel()]
    return both, _colours()


def _first() -> Lists:
    both: list[nn.Module] = [
        _CropAndEnlarge(254, 512, 700),
        v2.RandomRotation(180, interpolation=_BILINEAR),
        v2.RandomAffine(0, translate=(0.3, 0.3), scale=(0.8, 1.2), shear=25, interpolation=_BILINEAR),
    ]
    jitter = v2.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5)
    return both, [jitter, v2.GaussianBlur(5), *_defects()[1]]


def _shape() -> Lists:
    change = v2.RandomAffine(25, translate=(0.1, 0.1), scale=(0.9, 1.1), interpolation=_BILINEAR)
    return [v2.RandomApply([change], p=0.7)], []


class _CropAndEnlarge(nn.Module):
    """A random square of `low` to `high` pixels, or of all there is if that is less, resized to `side`."""

    def __init__(self, low: int, high: int, side: int) -> None:
        super().__init__()
        self._low, self._high, self._side = low, high, side

    def forward(self, *inputs: torch.Tensor) -> object:
        shortest = min(inputs[0].shape[-2:])
        crop = min(int(torch.randint(self._low, self._high + 1, ())), shortest)
        return v2.Compose([v2.RandomCrop(crop), v2.Resize((self._side, self._side), antialias=True)])(*inputs)


PRESETS: dict[str, Callable[[], Lists]] = {
    "none": lambda: ([], []),
    "inpainting": _inpainting,
    "base": _base,
    "defects": _defects,
    "defects_without_erasing": _defects_without_erasing,
    "defects_background": _defects_background,
    "preset_1": _first,
    "shape": _shape,
}


def augmentor_of(preset: str, size: tuple[int, int] | None = None, mode: str = "keep") -> Augmentor:
    """The augmentor of a preset.

    Args:
        preset: a key of PRESETS.
        size, mode: see `Augmentor`.

    Raises:
        UserError: there is no such preset; or see `Augmentor`.
    """
    if preset not in PRESETS:
        raise UserError(f"There is no augmentation preset {preset!r}; use one of {', '.join(PRESETS)}.")
    both, image_only = PRESETS[preset]()
    return Augmentor(both, image_only, size, mode)
