"""Objects put at random places of a black canvas, without overlap (thesis 4.3.3), and their augmentation (4.3.1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from coigan.config import check_value
from coigan.data.objects import CutOut, ObjectStore
from coigan.data.regions import tight
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.rules import check_name


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
    """Two lists of transforms.

    Args:
        both: torchvision v2 transforms of geometry, for image and masks with the same random values; the image is
            sampled bilinearly and the masks by the nearest pixel.
        image_only: of colour.
    """

    def __init__(self, both: Sequence[torch.nn.Module] = (), image_only: Sequence[torch.nn.Module] = ()) -> None:
        self._both, self._image_only = list(both), list(image_only)

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
        result = mask.as_subclass(torch.Tensor).to(masks.dtype)
        return None if picture is None else picture.as_subclass(torch.Tensor), result


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


def augmentor_of(preset: str) -> Augmentor:
    """The augmentor of a preset, a key of PRESETS.

    Raises:
        UserError: there is no such preset.
    """
    return Augmentor(*PRESETS[check_name("The augmentation preset", preset, PRESETS)]())


COUNTS = (0.4, 0.475, 0.1, 0.025)
_TRIES = 3
_RETRIES = 20


@dataclass
class Placement:
    """What was placed.

    Attributes:
        masks: (n, S, S) bool, a channel for each class.
        canvases: (n, S, S, 3) uint8, black where there is no object.
        objects: of each placed object its class, its own mask (S, S) and its key.
    """

    masks: np.ndarray
    canvases: np.ndarray
    objects: list[tuple[int, np.ndarray, str]] = field(default_factory=list)


class Placer:
    """Draws how many objects of each class, which, how turned and scaled, and where."""

    def __init__(
        self,
        stores: Sequence[ObjectStore],
        side: int,
        counts: Sequence[float] | Sequence[Sequence[float]] = COUNTS,
        augment: bool | Augmentor = True,
        overlap: bool = False,
        non_empty: str = "retry",
    ) -> None:
        """
        Args:
            stores: of each class.
            side: of the canvas in pixels.
            counts: probability of 0, 1, 2, ... objects of a class; or such a row for each class, so that rare ones come
                as often as wanted.
            augment: True turns each object by any angle, or scales it by 0.7 to 1.2 and shears it by up to 3 degrees;
                an augmentor does what it does.
            overlap: objects may lie on one another; of one class the later hides the earlier.
            non_empty: "retry" tries further objects and places until there is one; "last_class" is COIGAN's own rule,
                by which the class that comes last draws at least one object where there is none, so that a sample
                whose last tries fail stays empty; "" leaves it to the draws.

        Raises:
            UserError: counts or non_empty cannot be, or no store holds an object.
        """
        if not any(len(store) for store in stores):
            raise UserError("There is no object to place; prepare a data set whose training images have some.")
        self._stores, self._side, self._augment, self._overlap = stores, side, augment, overlap
        self._counts = _probabilities(counts, len(stores))
        self._non_empty = check_value("DATA.FORCE_NON_EMPTY", non_empty)

    def place(self, rng: np.random.Generator, own_overlap: bool = False) -> Placement:
        """Objects of all classes in a random order of these; no cut-out twice.

        Args:
            rng: all draws come from it.
            own_overlap: the last try may overlap with the object's own class (COIGAN's placer of shapes).
        """
        classes = len(self._stores)
        shape = (classes, self._side, self._side)
        result = Placement(np.zeros(shape, bool), np.zeros((*shape, 3), np.uint8))
        order = [int(number) for number in rng.permutation(classes) if len(self._stores[number])]
        for place, number in enumerate(order):
            held = len(self._stores[number])
            count = int(rng.choice(len(self._counts[number]), p=self._counts[number]))
            if self._non_empty == "last_class" and place == len(order) - 1 and not result.objects:
                count = max(1, count)
            for choice in rng.choice(held, min(count, held), replace=False):
                self._try(result, number, int(choice), rng, own_overlap)
        # the source's last class may fail as well, and an empty sample teaches nothing
        for attempt in range(_RETRIES if order and self._non_empty == "retry" else 0):
            if result.objects:
                break
            number = order[attempt % len(order)]
            self._try(result, number, int(rng.integers(len(self._stores[number]))), rng, own_overlap)
        return result

    def place_all(
        self, objects: Sequence[tuple[int, CutOut]], shape: tuple[int, int], rng: np.random.Generator
    ) -> Placement:
        """As many of the objects, turned but of their own size, as find room on a canvas of that height and width.

        Those that might not fit once they are turned are mirrored.

        Args:
            objects: class and cut-out of each.
            shape: of the canvas in pixels.
            rng: all draws come from it.
        """
        size = len(self._stores), *shape
        result = Placement(np.zeros(size, bool), np.zeros((*size, 3), np.uint8))
        # large ones first, which need the most room
        for number, cut in sorted(objects, key=lambda entry: -int(entry[1].mask.sum())):
            mask, pixels = cut.mask, cut.pixels
            if self._augment:
                mask, pixels = (turned if np.hypot(*mask.shape) <= min(shape) else _mirrored)(cut, rng)
            for _ in range(_RETRIES):
                if self._put(result, number, cut.key, mask, pixels, rng):
                    break
        return result

    def _try(self, result: Placement, number: int, choice: int, rng: np.random.Generator, own_overlap: bool) -> None:
        cut = self._stores[number][choice]
        self._put(result, number, cut.key, *self._changed(cut, rng), rng, own_overlap)

    def _put(
        self,
        result: Placement,
        number: int,
        key: str,
        mask: np.ndarray,
        pixels: np.ndarray | None,
        rng: np.random.Generator,
        own_overlap: bool = False,
    ) -> bool:
        """Whether a place was found for an object of class `number`."""
        canvas = result.masks.shape[1:]
        mask, pixels = _fit(mask, pixels, canvas, rng)
        if not mask.any():
            return False
        height, width = mask.shape
        taken = np.asarray(result.masks.any(axis=0))
        for attempt in range(_TRIES):
            y, x = (int(rng.integers(side - length + 1)) for side, length in zip(canvas, mask.shape, strict=True))
            window = np.s_[y : y + height, x : x + width]
            if own_overlap and attempt == _TRIES - 1:
                others = [other for other in range(len(self._stores)) if other != number]
                taken = np.asarray(result.masks[others].any(axis=0))
            if not self._overlap and (taken[window] & mask).any():
                continue
            own = np.zeros(canvas, bool)
            own[window] = mask
            result.masks[number] |= own
            if pixels is not None:
                result.canvases[number][window][mask] = pixels[mask]
            result.objects.append((number, own, key))
            return True
        return False

    def _changed(self, cut: CutOut, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        if not isinstance(self._augment, Augmentor):
            return transform(cut, rng) if self._augment else (cut.mask, cut.pixels)
        image = None if cut.pixels is None else torch.from_numpy(cut.pixels).permute(2, 0, 1).contiguous()
        changed, mask = self._augment(image, torch.from_numpy(cut.mask)[None], int(rng.integers(2**31)))
        own = tight(mask[0].numpy(), 0)
        if own is None:
            return mask[0].numpy(), None
        x0, y0, x1, y1 = own.box
        window = np.s_[y0 : y1 + 1, x0 : x1 + 1]
        return own.mask, None if changed is None else changed.permute(1, 2, 0).numpy()[window]


def _probabilities(counts: Sequence[float] | Sequence[Sequence[float]], classes: int) -> list[np.ndarray]:
    """A row for each class, of sum 1.

    Raises:
        UserError: they are no probabilities, or the rows are not as many as the classes.
    """
    flat = bool(len(counts)) and all(isinstance(value, int | float) for value in counts)
    with as_user_error(
        f"DATA.COUNTS is {counts!r}", "set it to probabilities, or to a row of them a class", TypeError, ValueError
    ):
        rows = [np.asarray(row, float) for row in ([counts] * classes if flat else counts)]
    if len(rows) != classes:
        raise UserError(
            f"DATA.COUNTS has {len(rows)} rows, but there are {classes} classes; give one row, or each its own."
        )
    if any(row.ndim != 1 or not np.isfinite(row).all() or (row < 0).any() or row.sum() <= 0 for row in rows):
        raise UserError(f"DATA.COUNTS is {counts!r}; all probabilities are 0 or more, and of a class not all are 0.")
    return [row / row.sum() for row in rows]


def transform(cut: CutOut, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """The object turned by any angle, or scaled and sheared a little; on a canvas that holds all of it."""
    if rng.random() < 0.5:
        return turned(cut, rng)
    return _warped(cut, 0.0, rng.uniform(0.7, 1.2), np.tan(np.deg2rad(rng.uniform(-3, 3))))


def turned(cut: CutOut, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """The object turned by any angle; on a canvas that holds all of it."""
    return _warped(cut, rng.uniform(-180, 180))


def _mirrored(cut: CutOut, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    axes = [axis for axis in (0, 1) if rng.random() < 0.5]
    return np.flip(cut.mask, axes), None if cut.pixels is None else np.flip(cut.pixels, axes)


def _warped(cut: CutOut, angle: float, scale: float = 1.0, shear: float = 0.0) -> tuple[np.ndarray, np.ndarray | None]:
    height, width = cut.mask.shape
    turn = np.deg2rad(angle)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ [[1, shear], [0, 1]]
    corners = linear @ np.array([[0, width, 0, width], [0, 0, height, height]], float)
    low, high = corners.min(1), corners.max(1)
    size = [max(1, int(np.ceil(length))) for length in high - low]
    matrix = np.hstack([linear, -low[:, None]])
    mask = cv2.warpAffine(cut.mask.astype(np.uint8), matrix, size, flags=cv2.INTER_NEAREST) > 0
    if cut.pixels is None:
        return mask, None
    # repeated borders keep black from bleeding into the object's own pixels
    pixels = cv2.warpAffine(cut.pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return mask, pixels


def _fit(
    mask: np.ndarray, pixels: np.ndarray | None, canvas: Sequence[int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """A random part of what is larger than the canvas."""
    spare = (max(0, length - side) for length, side in zip(mask.shape, canvas, strict=True))
    y, x = (int(rng.integers(length + 1)) for length in spare)
    window = np.s_[y : y + canvas[0], x : x + canvas[1]]
    return mask[window], None if pixels is None else pixels[window]
