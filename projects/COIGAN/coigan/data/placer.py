"""Objects put at random places of a black canvas, class by class, without overlap (thesis 4.3.3, figure 4.11)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from gan_plugin.errors import UserError

from .augmentor import Augmentor
from .objects import CutOut, ObjectStore
from .regions import tight

COUNTS = (0.4, 0.475, 0.1, 0.025)
NON_EMPTY = ("retry", "last_class", "")
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
        if non_empty not in NON_EMPTY:
            raise UserError(f"DATA.FORCE_NON_EMPTY is {non_empty!r}; set it to retry, last_class, or '' for neither.")
        self._non_empty = non_empty

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
    try:
        rows = [np.asarray(row, float) for row in ([counts] * classes if flat else counts)]
    except (TypeError, ValueError) as error:
        raise UserError(f"DATA.COUNTS is {counts!r}; set it to probabilities, or to a row of them a class.") from error
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
