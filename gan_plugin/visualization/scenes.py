"""A test image and one object of it from near: truth, predictions, and where each is right and wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from gan_plugin.data.pictures import read_rgb

from . import panels
from .page import photo
from .panels import AGREEMENT, INVENTED, MISSED, OUTLINE_LEGEND, Instance

_ZOOMS = 3
_TILE = 240
# around the object, as a share of its longer side
_MARGIN = 0.2
_LEAST_SIDE = 24
_EMPTY = 128


class Scene:
    """Draws the pictures of one image, all of the same size."""

    def __init__(self, record: dict[str, Any], classes: Sequence[str], longest: int = 896) -> None:
        """
        Args:
            record: of the image, as Detectron2 keeps it; its file can be read.
            classes: names of the labels.
            longest: pixels of the pictures' longer side.
        """
        self.truth = panels.instances_of_record(record)
        self.pixels = read_rgb(record["file_name"])
        self._classes, self._longest = classes, longest
        self._picture = panels.scale(self.pixels, longest)

    def image(self) -> dict[str, str]:
        """The image as it is."""
        return photo(self._picture, "The image as it is.", "Image")

    def annotated(self) -> dict[str, str]:
        """The image under its annotated masks."""
        count = len(self.truth)
        drawn = self._drawn(self.truth, range(count), [self.name(instance) for instance in self.truth])
        caption = f"Truth: {count} {'object' if count == 1 else 'objects'}"
        return photo(drawn, f"The image with {count} annotated masks.", caption)

    def predicted(self, found: Sequence[Instance], caption: str) -> dict[str, str]:
        """The image under predicted masks; an object and the prediction that matches it share a colour."""
        order = {partner: index for index, (partner, _) in panels.match(self.truth, found).items()}
        others = sorted(set(range(len(found))) - set(order))
        order |= {index: len(self.truth) + k for k, index in enumerate(others)}
        texts = [f"{self.name(instance)} {instance.score:.2f}" for instance in found]
        drawn = self._drawn(found, [order[i] for i in range(len(found))], texts)
        return photo(drawn, f"The image with {len(found)} predicted masks.", caption)

    def difference(self, found: Sequence[Instance], whose: str = "") -> dict[str, str]:
        """Where the predictions (of `whose` run, if it matters) differ from the truth, pixel by pixel."""
        pairs = len(panels.match(self.truth, found))
        counts = f"{pairs} matched, {len(self.truth) - pairs} missed, {len(found) - pairs} invented"
        differing = panels.scale(panels.difference(self.truth, found, self.pixels.shape[:2]), self._longest)
        text = f"Difference{f' of {whose}' if whose else ''}: {counts}"
        return photo(panels.draw_difference(self._picture, differing), f"{text}.", text)

    def zooms(self, found: Sequence[Instance]) -> list[dict[str, str]]:
        """Close-ups of where the outlines of the largest matched objects differ most."""
        matches = panels.match(self.truth, found)
        largest = sorted(matches, key=lambda index: -self.truth[index].mask.sum())[:_ZOOMS]
        pictures = []
        for index in largest:
            truth, (partner, iou) = self.truth[index], matches[index]
            zoom = panels.boundary_zoom(self.pixels, truth.mask, found[partner].mask)
            pictures.append(photo(zoom, f"Outlines of a {self.name(truth)}.", f"{self.name(truth)}, IoU {iou:.2f}"))
        return pictures

    def name(self, instance: Instance) -> str:
        """Of its class."""
        return self._classes[instance.label] if instance.label < len(self._classes) else str(instance.label)

    def _drawn(self, instances: Sequence[Instance], numbers: Sequence[int], texts: Sequence[str]) -> np.ndarray:
        masks = [panels.scale(instance.mask, self._longest) for instance in instances]
        colours = [panels.INSTANCE_COLOURS[number % len(panels.INSTANCE_COLOURS)] for number in numbers]
        return panels.draw_instances(self._picture, masks, texts, colours)


def close_up(
    pixels: np.ndarray, truth: np.ndarray, predictions: Mapping[str, np.ndarray | None]
) -> list[dict[str, str]]:
    """Square pictures of the same window: image, truth, each prediction, the difference of each to the truth.

    Args:
        pixels: (H, W, 3) uint8 RGB, the whole image.
        truth: (H, W) bool.
        predictions: who -> the mask (H, W), or None for a miss.

    Returns:
        2 + 2 * len(predictions) embedded pictures.
    """
    masks = {who: np.zeros_like(truth) if mask is None else mask for who, mask in predictions.items()}
    rows, columns = _window(np.any([truth, *masks.values()], axis=0))
    image = _fitted(pixels[rows, columns])
    tiles = [
        photo(image, "Close-up of the image.", "image"),
        photo(_covered(image, truth[rows, columns], "truth"), "The same with the annotated mask.", "truth"),
    ]
    for who, mask in masks.items():
        missed = predictions[who] is None
        drawn = _covered(image, mask[rows, columns], "prediction")
        tiles.append(
            photo(drawn, f"The same with the mask of {who}.", f"{who}: nothing found" if missed else f"{who}: its mask")
        )
    for who, mask in masks.items():
        drawn = panels.draw_difference(image, _fitted(right_and_wrong(truth, mask)[rows, columns]))
        tiles.append(photo(drawn, f"The same, mask of {who} against the truth.", f"{who}: difference"))
    return tiles


def outlined(pixels: np.ndarray, first: np.ndarray | None, second: np.ndarray | None, side: int) -> np.ndarray:
    """A square (side, side, 3) around an object, with the outlines of two masks of it in the colours of OUTLINE_LEGEND.

    Args:
        pixels: (H, W, 3) uint8 RGB, the whole image.
        first: (H, W) bool, drawn like the truth; None for nothing.
        second: likewise, drawn thinner, like a prediction.
        side: in pixels.
    """
    masks = [np.zeros(pixels.shape[:2], bool) if mask is None else mask for mask in (first, second)]
    rows, columns = _window(masks[0] | masks[1])
    picture = _fitted(pixels[rows, columns], side)
    for mask, colour, width in zip(masks, OUTLINE_LEGEND.values(), (4, 2), strict=True):
        enlarged = _fitted(mask[rows, columns], side)
        for shade, thickness in (((0, 0, 0), width + 2), (colour, width)):
            panels.draw_outline(picture, enlarged, shade, thickness)
    return picture


def right_and_wrong(truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8: AGREEMENT (both cover the pixel), MISSED (the truth alone), INVENTED (the mask alone) or 0."""
    cases = [truth & mask, truth & ~mask, mask & ~truth]
    return np.select(cases, [AGREEMENT, MISSED, INVENTED], 0).astype(np.uint8)


def _window(area: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a square around `area`, as far as the image goes."""
    x, y, width, height = cv2.boundingRect(area.astype(np.uint8))
    side = max(_LEAST_SIDE, round((1 + 2 * _MARGIN) * max(width, height)))
    slices = []
    for start, length, limit in ((y, height, area.shape[0]), (x, width, area.shape[1])):
        first = max(0, min(start + (length - side) // 2, limit - side))
        slices.append(slice(first, min(limit, first + side)))
    return slices[0], slices[1]


def _fitted(picture: np.ndarray, side: int = _TILE) -> np.ndarray:
    """Enlarged to a square tile, with grey (or 0, for a map) beside what is not square."""
    scaled = panels.scale(picture, side)
    height, width = scaled.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    tile = np.full((side, side, *scaled.shape[2:]), _EMPTY if scaled.ndim == 3 else 0, scaled.dtype)
    tile[top : top + height, left : left + width] = scaled
    return tile


def _covered(image: np.ndarray, mask: np.ndarray, which: str) -> np.ndarray:
    return panels.draw_instances(image, [_fitted(mask)], [""], [OUTLINE_LEGEND[which]])
