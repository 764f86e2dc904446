"""Sets of real and painted images as a feature network sees them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch

from coigan.engine.batch import Batch, collate
from gan_plugin.data.pictures import read_rgb
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.errors import UserError
from gan_plugin.evaluation.image_features import Extractor, Features, cached_features

Sample = Mapping[str, torch.Tensor]


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1] -> bytes, rounded."""
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def real_batches(paths: Sequence[Path], side: int, batch: int) -> Iterator[torch.Tensor]:
    """The images of `paths`, `batch` at a time, as (N, 3, side, side) bytes.

    Raises:
        UserError: an image cannot be read or has another size.
    """
    remaining = iter(paths)
    while chosen := list(islice(remaining, batch)):
        pixels = [torch.from_numpy(read_rgb(path)).permute(2, 0, 1) for path in chosen]
        for path, image in zip(chosen, pixels, strict=True):
            if image.shape[1:] != (side, side):
                found = "x".join(str(length) for length in (image.shape[2], image.shape[1]))
                raise UserError(f"{path} has {found} pixels, but INPUT.SIZE is {side}; prepare tiles of that size.")
        yield torch.stack(pixels)


def real_features(
    paths: Sequence[Path], side: int, extractor: Extractor, *, count: int, cache: Path, batch: int = 16
) -> Features:
    """The features of at most `count` of the images `paths`, evenly chosen, from the folder `cache` if it has them.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    if not paths:
        raise UserError("There are no real images to compare with; prepare the data set with a test part.")
    places = range(min(count, len(paths)))
    chosen = [paths[place * len(paths) // len(places)] for place in places]
    stamps = "\n".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in chosen)
    key = f"{hashlib.sha256(stamps.encode()).hexdigest()} {side}"
    return cached_features(cache, key, extractor, real_batches(chosen, side, batch))


def painted_batches(
    paint: Callable[[Batch], torch.Tensor],
    draw: Callable[[int], Sample],
    device: torch.device,
    *,
    count: int,
    batch: int,
    seed: int,
) -> Iterator[torch.Tensor]:
    """`count` painted images as bytes, the same for the same weights and seed.

    Args:
        paint: batch -> images in [0, 1].
        draw: number -> a sample of the loader, drawn from the global random state.
        device: of the batches.
        count, batch: images in all, and at a time.
        seed: of the samples, and of the generator's own noise.
    """
    for first in range(0, count, batch):
        with preserved_rng(seed=seed + first), torch.no_grad():
            items = [draw(number) for number in range(first, min(first + batch, count))]
            yield as_bytes(paint(collate(items, device)))
