"""Augmentation of an image together with its masks, and of the image alone, and its presets (thesis 4.3.1)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.errors import UserError

SIZE_MODES = ("keep", "pad", "rnd_pad", "resize")


class SomeOf(v2.Transform):
    """Applies a random number of the transforms, from `low` to `high`, both included, in a random order.

    COIGAN's code left `high` out, so that of [0, 2] it never applied two.
    """

    def __init__(self, transforms: Sequence[torch.nn.Module], low: int, high: int) -> None:
        super().__init__()
        if not 0 <= low <= high <= len(transforms):
            raise ValueError(f"from {low} to {high} of {len(transforms)} transforms")
        self.transforms = torch.nn.ModuleList(transforms)
        self.low, self.high = low, high

    def forward(self, *inputs: torch.Tensor) -> object:
        count = int(torch.randint(self.low, self.high + 1, ()))
        for number in torch.randperm(len(self.transforms))[:count].tolist():
            outputs = self.transforms[number](*inputs)
            inputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return inputs if len(inputs) > 1 else inputs[0]


class Augmentor:
    """Two lists of transforms, then a size.

    Args:
        both: torchvision v2 transforms of geometry, for image and masks with the same random values; the image is
            sampled bilinearly and the masks by the nearest pixel.
        image_only: of colour.
        size: (height, width) of the result; None where `mode` is keep.
        mode: "keep" the size that comes out; "pad" with zeros at the right and the bottom; "rnd_pad" at random on all
            sides; "resize". What is larger than the size is cut at random in the pad modes.

    Raises:
        UserError: an unknown mode, or one that needs a size without any.
    """

    def __init__(
        self,
        both: Sequence[torch.nn.Module] = (),
        image_only: Sequence[torch.nn.Module] = (),
        size: tuple[int, int] | None = None,
        mode: str = "keep",
    ) -> None:
        if mode not in SIZE_MODES or (mode != "keep") != (size is not None):
            raise UserError(f"The size mode is one of {', '.join(SIZE_MODES)}, and all but keep need a size.")
        self._both, self._image_only = list(both), list(image_only)
        self._size, self._mode = size, mode

    def __call__(
        self, image: torch.Tensor | None, masks: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Augment one sample.

        Args:
            image: (3, H, W) uint8, or None.
            masks: (n, H, W) uint8 or bool.
            seed: all random choices depend on it; torch's own random state stays as it is.

        Returns:
            Both of one size, the image uint8 and the masks as they came.
        """
        with preserved_rng(seed=seed):
            mask = tv_tensors.Mask(masks.to(torch.uint8))
            picture = None if image is None else tv_tensors.Image(image)
            for transform in self._both:
                if picture is None:
                    mask = transform(mask)
                else:
                    picture, mask = transform(picture, mask)
            for transform in self._image_only if picture is not None else ():
                picture = transform(picture)
            picture, mask = self._sized(picture, mask)
        result = mask.as_subclass(torch.Tensor).to(masks.dtype)
        return None if picture is None else picture.as_subclass(torch.Tensor), result

    def _sized(self, image: torch.Tensor | None, mask: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        if self._size is None:
            return image, mask
        if self._mode == "resize":
            smaller = None if image is None else F.resize(image, list(self._size), antialias=True)
            return smaller, F.resize(mask, list(self._size))
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        present = [tensor for tensor in (image, mask) if tensor is not None]
        for axis, wanted in zip((-2, -1), self._size, strict=True):
            length = mask.shape[axis]
            extra, missing = max(0, length - wanted), max(0, wanted - length)
            start = int(rng.integers(extra + 1))
            before = int(rng.integers(missing + 1)) if self._mode == "rnd_pad" else 0
            edges = [0, before, 0, missing - before] if axis == -2 else [before, 0, missing - before, 0]
            present = [F.pad(tensor.narrow(axis, start, min(length, wanted)), edges) for tensor in present]
            mask = present[-1]
        return (None if image is None else present[0]), present[-1]


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
