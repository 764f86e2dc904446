"""Severstal's run lengths: 1-based starts and lengths on the image read column by column (thesis 4.2.1, Fig. 4.3)."""

import numpy as np


def decode(text: str, height: int, width: int) -> np.ndarray:
    """The mask that `text` ("start length start length ...") describes.

    Args:
        text: starts are 1-based positions in the column-major image; "" is an empty mask.
        height, width: of the image in pixels.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: an odd count of numbers, something else than a whole number, or a run outside of the image.
    """
    numbers = np.array(text.split(), dtype=np.int64)
    if len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers do not make pairs of start and length")
    starts, lengths = numbers[0::2] - 1, numbers[1::2]
    if len(numbers) and (starts.min() < 0 or lengths.min() < 1 or (starts + lengths).max() > height * width):
        raise ValueError(f"a run leaves the image of {width}x{height} pixels")
    # +1 where a run begins and -1 behind its end: the running sum is the number of runs over a pixel
    steps = np.zeros(height * width + 1, np.int32)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + lengths, -1)
    return (np.cumsum(steps[:-1]) > 0).reshape(width, height).T


def encode(mask: np.ndarray) -> str:
    """The run lengths of `mask`, (height, width), non-zero inside; "" for an empty one."""
    flat = np.concatenate([[False], np.asarray(mask, dtype=bool).T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    return " ".join(f"{start} {length}" for start, length in zip(starts, ends - starts, strict=True))
