"""What lies below a mask in a Cityscapes instance-id image: pixels of each piece of truth, void, and all else."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from cityscapesscripts.helpers.labels import labels, name2label
from PIL import Image

from gan_plugin.data.cityscapes import id_image_problem
from gan_plugin.data.pictures import image_problem
from gan_plugin.errors import UserError

EVALUATED = {label.id: label.name for label in labels if label.hasInstances and not label.ignoreInEval}
FIRST_INSTANCE_ID = 1000
_KNOWN = np.array([label.id for label in labels if label.id >= 0])
_VOID = np.array([label.id for label in labels if label.id >= 0 and label.ignoreInEval])
# bins of the counts; those of the pieces follow
_ELSEWHERE, ON_VOID, FIRST_PIECE = 0, 1, 2


def read_instance_ids(path: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """(H, W) whole numbers: an instance-id image of gtFine, so whole and so sound that it can be evaluated.

    Args:
        path: of the file.
        size: height and width that it must have.

    Raises:
        UserError: it is missing, broken, of the wrong kind or size, or has ids that Cityscapes does not define; the
            sentence names it.
    """
    if problem := id_image_problem(path, *(size or (0, 0))[::-1]):
        raise UserError(problem.sentence)
    try:
        with Image.open(path) as image:
            ids = np.asarray(image)
    except Exception as error:  # as in image_problem: Pillow's decoders have many
        raise UserError(image_problem(path) or f"{path} cannot be decoded ({error}).") from error
    try:
        _count_ids(ids)
    except UserError as error:
        raise UserError(f"{path} is no instance-id image: {error}; unpack gtFine again.") from error
    return ids


def label_id(classes: Sequence[str], index: int) -> int:
    """Cityscapes' id of the class that the model calls `index`.

    Args:
        classes: `thing_classes` of the data set.
        index: from 0 on.

    Raises:
        UserError: there is no such class, or Cityscapes does not know it.
    """
    if not 0 <= index < len(classes):
        raise UserError(
            f"The model predicts class {index}, but the data set has {len(classes)} classes; set "
            f"MODEL.ROI_HEADS.NUM_CLASSES to {len(classes)}."
        )
    if classes[index] not in name2label:
        raise UserError(
            f"The class '{classes[index]}' is not one of Cityscapes; set the data set's thing_classes to its names."
        )
    return name2label[classes[index]].id


class InstanceIds:
    """The instance-id image of one image, ready to be counted below any number of masks.

    A piece of truth is an instance or a group of a class in `EVALUATED`. Void are the pixels whose id is that of a
    label that is not evaluated; not those of its instances, such as caravan 29001.

    Args:
        ids: (H, W) integers as in gtFine: a label's id, or 1000 times that plus a number.

    Attributes:
        pieces: (P,) their ids, ascending.
        classes: (P,) their label ids.
        sizes: (P,) their pixels.

    Raises:
        UserError: the ids are not those of Cityscapes.
    """

    def __init__(self, ids: np.ndarray) -> None:
        pixels = _count_ids(ids)
        present = np.flatnonzero(pixels)
        self.pieces = present[np.isin(_label_of(present), list(EVALUATED))]
        self.classes = _label_of(self.pieces)
        self.sizes = pixels[self.pieces]
        bins = np.full(len(pixels), _ELSEWHERE, np.uint16)
        bins[np.intersect1d(_VOID, present)] = ON_VOID
        bins[self.pieces] = FIRST_PIECE + np.arange(len(self.pieces))
        self._bins = bins[ids]

    @cached_property
    def _by_columns(self) -> np.ndarray:
        return self._bins.ravel(order="F")

    def count(self, mask: np.ndarray | dict[str, Any]) -> np.ndarray:
        """(FIRST_PIECE + P,) pixels of the mask: elsewhere, on void, on each piece.

        Args:
            mask: (H, W) bool, or a COCO RLE of that size: {"size": [H, W], "counts"}, where the counts are a list or
                compressed to a string or bytes.

        Raises:
            UserError: the mask has another size.
        """
        shape = tuple(mask["size"]) if isinstance(mask, dict) else mask.shape
        if shape != self._bins.shape:
            raise UserError(f"it has {self._bins.shape} rows and columns where a predicted mask has {shape}")
        below = self._below_runs(mask["counts"]) if isinstance(mask, dict) else self._below_pixels(mask)
        return np.bincount(below, minlength=FIRST_PIECE + len(self.pieces))

    def _below_pixels(self, mask: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(mask.any(axis=1))
        if not len(rows):
            return self._bins[:0, 0]
        band = slice(rows[0], rows[-1] + 1)
        columns = np.flatnonzero(mask[band].any(axis=0))
        # the mask's box: indexing by a bool array costs as much for the pixels that it leaves out
        box = band, slice(columns[0], columns[-1] + 1)
        return self._bins[box][mask[box]]

    def _below_runs(self, counts: list[int] | str | bytes) -> np.ndarray:
        lengths = np.asarray(counts, np.int64) if isinstance(counts, list) else run_lengths(counts)
        starts, foreground = np.cumsum(lengths)[: 2 * (len(lengths) // 2) : 2], lengths[1::2]
        gaps = starts - (np.cumsum(foreground) - foreground)
        return self._by_columns[np.repeat(gaps, foreground) + np.arange(foreground.sum())]


def run_lengths(counts: str | bytes) -> np.ndarray:
    """(R,) lengths of the runs, background first, of COCO's compressed counts.

    Each number is written in characters of five bits, the low ones first, from code 48 on; bit 5 says that another
    character follows, bit 4 of the last is the sign. From the fourth number on it is the difference to the run two
    before. pycocotools only decodes to pixels, which takes several times as long as all else that is done here.
    """
    codes = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.append(0, ends[:-1] + 1)
    width = ends - starts + 1
    place = np.arange(len(codes)) - np.repeat(starts, width)
    lengths = np.add.reduceat((codes & 31) << 5 * place, starts)
    lengths -= np.where(codes[ends] & 16, 1 << 5 * width, 0)
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths


def _count_ids(ids: np.ndarray) -> np.ndarray:
    """The pixels of each id from 0 to the highest."""
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise UserError(f"it has shape {ids.shape} and type {ids.dtype}, where instance ids are (H, W) integers")
    extremes = np.array([ids.min(), ids.max()])
    # before counting, which takes memory for every id up to the highest
    _check_known(extremes)
    pixels = np.bincount(ids.reshape(-1))
    _check_known(np.flatnonzero(pixels))
    return pixels


def _check_known(ids: np.ndarray) -> None:
    unknown = ids[~np.isin(_label_of(ids), _KNOWN)]
    if len(unknown):
        raise UserError(f"it has the id {unknown[0]}, which Cityscapes does not define")


def _label_of(ids: np.ndarray) -> np.ndarray:
    return np.where(ids < FIRST_INSTANCE_ID, ids, ids // FIRST_INSTANCE_ID)
