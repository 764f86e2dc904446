"""Pictures and videos that a command line names, and the frames of a video."""

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

from gan_plugin.data.mask_files import SUFFIXES, images_in
from gan_plugin.data.pictures import header_problem
from gan_plugin.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


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
