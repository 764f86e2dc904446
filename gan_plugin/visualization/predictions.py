"""What a model finds in the pictures and videos that a command line names, drawn over them.

Two models are shown side by side, with what they differ on enlarged.
"""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.visualizer import Visualizer
from pycocotools import mask as rle_tools

from gan_plugin.data.mask_files import SUFFIXES, images_in
from gan_plugin.data.pictures import header_problem
from gan_plugin.errors import UserError

from .panels import Instance, boundary_zoom, instance_from_mask, match, scale
from .scenes import outlined

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
# a pair that overlaps less is two objects, each of which one model alone has found
LEAST_IOU = 0.25
_COUNT, _TILE, _GAP = 4, 300, 6
_LINE = 24


@dataclass(frozen=True)
class Inputs:
    """What is to be looked at.

    Attributes:
        pictures: their files, each once.
        videos: likewise.
        root: the folder that all of them are below.
    """

    pictures: list[Path]
    videos: list[Path]
    root: Path

    def target(self, path: Path) -> Path:
        """The name of what is drawn, relative to its folder: that of the picture, below the root."""
        name = path.absolute().relative_to(self.root)
        if path in self.videos:
            return name.with_suffix(".mp4")
        return name if name.suffix.lower() in SUFFIXES else name.with_name(f"{name.name}.png")

    def image_id(self, path: Path) -> str:
        """The path below the root without suffix; with it if another picture differs in that alone."""
        name = path.absolute().relative_to(self.root)
        return (name if path.absolute().with_suffix("") in self._alike else name.with_suffix("")).as_posix()

    @cached_property
    def _alike(self) -> set[Path]:
        counted = Counter(path.absolute().with_suffix("") for path in (*self.pictures, *self.videos))
        return {stem for stem, count in counted.items() if count > 1}


def find_inputs(names: Sequence[str]) -> Inputs:
    """The pictures and videos that `names` stand for: files, folders (not those below them) and patterns such as *.jpg.

    Raises:
        UserError: there is nothing under one of them, or not one of the pictures is one.
    """
    found: dict[Path, None] = {}
    for name in names:
        found.update(dict.fromkeys(_files(name)))
    paths = list(found)
    videos = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    pictures = [path for path in paths if path not in set(videos)]
    problems = [problem for path in pictures if (problem := header_problem(path))]
    if pictures and len(problems) == len(pictures) and not videos:
        more = f" (and none of {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"No picture can be read{more}: {problems[0].sentence}")
    folders = {path.absolute().parent for path in paths}
    return Inputs(pictures, videos, Path(os.path.commonpath(folders)))


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        videos = [file for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES]
        if files := sorted([*images_in(path), *videos]):
            return files
        raise UserError(f"The folder {name} holds no picture and no video; name another one, or a pattern such as "
                        f"{path / '*/*.jpg'}.")  # fmt: skip
    if path.is_file():
        return [path]
    if glob.has_magic(name):
        if files := sorted(Path(file) for file in glob.glob(name, recursive=True) if os.path.isfile(file)):
            return files
        raise UserError(f"No file fits the pattern {name}; check --input.")
    raise UserError(f"{name} does not exist; name a picture, a folder, a pattern or a video with --input.")


class Film(NamedTuple):
    """A video that is open.

    Attributes:
        frames: (H, W, 3) uint8 RGB each, to be read once.
        total: how many it says that it has.
        rate: frames a second.
        size: width and height in pixels.
    """

    frames: Iterator[np.ndarray]
    total: int
    rate: float
    size: tuple[int, int]


@contextmanager
def read_video(path: Path) -> Iterator[Film]:
    """Open a video.

    Raises:
        UserError: it cannot be read.
    """
    capture = cv2.VideoCapture(str(path))
    try:
        readable, first = capture.read()
        if not readable:
            raise UserError(f"The video {path} cannot be read; convert it to an .mp4 with H.264.")
        rate = capture.get(cv2.CAP_PROP_FPS)
        yield Film(
            _frames(capture, first),
            int(capture.get(cv2.CAP_PROP_FRAME_COUNT)),
            rate if 0 < rate <= 1000 else 25.0,
            (first.shape[1], first.shape[0]),
        )
    finally:
        capture.release()


def _frames(capture: cv2.VideoCapture, frame: np.ndarray) -> Iterator[np.ndarray]:
    readable = True
    while readable:
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        readable, frame = capture.read()


@contextmanager
def write_video(path: Path, rate: float, size: tuple[int, int]) -> Iterator[Callable[[np.ndarray], Any]]:
    """Open an .mp4 for frames (H, W, 3) uint8 RGB; it appears as `path` once it is complete.

    Raises:
        UserError: it cannot be written.
    """
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        raise UserError(f"The video {path} cannot be written; choose another --output.")
    try:
        yield lambda frame: writer.write(cv2.cvtColor(cv2.resize(frame, size), cv2.COLOR_RGB2BGR))
        writer.release()
        os.replace(part, path)
    finally:
        writer.release()
        part.unlink(missing_ok=True)


class Pair(NamedTuple):
    """An object as two models see it; None of the one that has not found it.

    Attributes:
        first: of the first model.
        second: of the other.
        iou: how well their masks agree, in [0, 1].
    """

    first: Instance | None
    second: Instance | None
    iou: float

    @property
    def area(self) -> int:
        """Pixels of the larger one."""
        return max(int(rle_tools.area(one.rle)) for one in (self.first, self.second) if one is not None)


def confident(found: Instances, score: float) -> Instances:
    """Those that score `score` or more."""
    return found[found.scores >= score]


def overlay(pixels: np.ndarray, found: Instances, metadata: Metadata) -> np.ndarray:
    """The picture (H, W, 3) uint8 RGB under what was found, as Detectron2's Visualizer draws it."""
    return Visualizer(pixels, metadata).draw_instance_predictions(found).get_image()


def instances_of(found: Instances) -> list[Instance]:
    """The masks that a model has predicted; of one without masks its boxes."""
    labels, scores = found.pred_classes.tolist(), found.scores.tolist()
    if found.has("pred_masks"):
        masks = [mask.numpy() for mask in found.pred_masks]
    else:
        masks = []
        for x0, y0, x1, y1 in found.pred_boxes.tensor.round().int().tolist():
            masks.append(np.zeros(found.image_size, bool))
            masks[-1][y0:y1, x0:x1] = True
    return [instance_from_mask(*each) for each in zip(masks, labels, scores, strict=True)]


def most_different(first: Sequence[Instance], second: Sequence[Instance], count: int = _COUNT) -> list[Pair]:
    """The objects on which two models differ most, by 1 - IoU; what one alone has found differs by 1.

    Of equal ones the larger object comes first. Objects on which they agree in every pixel are left out.
    """
    matches = match(first, second, LEAST_IOU)
    pairs = [Pair(first[index], second[partner], iou) for index, (partner, iou) in matches.items()]
    pairs += [Pair(one, None, 0.0) for index, one in enumerate(first) if index not in matches]
    partners = {partner for partner, _ in matches.values()}
    pairs += [Pair(None, one, 0.0) for index, one in enumerate(second) if index not in partners]
    changed = [pair for pair in pairs if pair.iou < 1]
    return sorted(changed, key=lambda pair: (round(pair.iou, 9), -pair.area))[:count]


def side_by_side(
    pixels: np.ndarray,
    overlays: Sequence[np.ndarray],
    pairs: Sequence[Pair],
    names: Sequence[str],
    classes: Sequence[str],
) -> np.ndarray:
    """One picture: both overlays, and below them the pairs' outlines enlarged, of the first blue, of the second yellow.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        overlays: of both models.
        pairs: of `most_different`.
        names: of both models.
        classes: names of the labels.
    """
    width = _COUNT * _TILE + (_COUNT - 1) * _GAP
    half = (width - _GAP) // 2
    height, along = overlays[0].shape[:2]
    longest = max(half, round(half * height / along))
    upper = [_titled(scale(picture, longest), name) for picture, name in zip(overlays, names, strict=True)]
    rows = [_beside(upper, width)]
    if pairs:
        rows.append(_beside([_titled(_tile(pixels, pair), _title(pair, classes)) for pair in pairs], width))
    return np.concatenate(rows)


def _tile(pixels: np.ndarray, pair: Pair) -> np.ndarray:
    # an object of both where their outlines differ most, that of one alone as a whole
    first, second = (None if one is None else one.mask for one in pair[:2])
    if first is None or second is None:
        return outlined(pixels, first, second, _TILE)
    return boundary_zoom(pixels, first, second, _TILE)


def _title(pair: Pair, classes: Sequence[str]) -> str:
    label = next(one.label for one in (pair.first, pair.second) if one is not None)
    name = classes[label] if label < len(classes) else f"class {label}"
    alone = "left alone" if pair.second is None else "right alone" if pair.first is None else f"IoU {pair.iou:.2f}"
    return f"{name}, {alone}"


def _titled(picture: np.ndarray, text: str) -> np.ndarray:
    band = np.full((_LINE, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(band, text, (4, _LINE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([band, picture])


def _beside(pictures: Sequence[np.ndarray], width: int) -> np.ndarray:
    row = np.full((max(picture.shape[0] for picture in pictures) + _GAP, width, 3), 255, np.uint8)
    x = 0
    for picture in pictures:
        height, along = picture.shape[:2]
        row[:height, x : x + along] = picture
        x += along + _GAP
    return row
