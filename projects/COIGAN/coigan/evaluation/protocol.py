"""The source's protocol: whole pictures, painted and others, against test tiles (thesis 4.5.2)."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from coigan.batch import Batch, blend, collate
from coigan.data.samples import TrainingData
from coigan.inference import TrainedGenerator
from coigan.modeling.build import choose_device
from gan_plugin.data.pictures import read_rgb
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.errors import UserError
from gan_plugin.evaluation.image_features import Extractor, Features, cached_features, extract
from gan_plugin.evaluation.image_scores import score

_LARGEST = 255


class BackgroundChange:
    """Differences between painted and base images, in bytes, summed up pixel by pixel in and outside of the masks."""

    def __init__(self) -> None:
        self._absolute = {"inside": 0.0, "outside": 0.0}
        self._squares = {"inside": 0.0, "outside": 0.0}
        self._values = {"inside": 0, "outside": 0}

    def add(self, images: torch.Tensor, batch: Batch) -> None:
        """Count `images`, (N, 3, H, W) in [0, 1], which were painted for `batch`."""
        difference = as_bytes(images).cpu().double() - as_bytes(batch.base).cpu().double()
        asked = (batch.masks.amax(1, keepdim=True) > 0).cpu().expand_as(difference)
        for where, chosen in (("inside", asked), ("outside", ~asked)):
            part = difference[chosen]
            self._absolute[where] += part.abs().sum().item()
            self._squares[where] += part.square().sum().item()
            self._values[where] += part.numel()

    def watching(self, paint: Callable[[Batch], torch.Tensor]) -> Callable[[Batch], torch.Tensor]:
        """`paint`, of which every result is counted."""

        def watched(batch: Batch) -> torch.Tensor:
            images = paint(batch)
            self.add(images, batch)
            return images

        return watched

    def results(self) -> dict[str, float | None]:
        """L1 outside and inside of the masks, the mean absolute difference in [0, 255], and the PSNR outside in dB.

        None where there is no such pixel; an unchanged background has no finite PSNR, so None as well.
        """
        mean_square = self._ratio(self._squares, "outside")
        psnr = 10 * math.log10(_LARGEST**2 / mean_square) if mean_square else None
        return {
            "L1_outside": self._ratio(self._absolute, "outside"),
            "PSNR_outside": psnr,
            "L1_inside": self._ratio(self._absolute, "inside"),
        }

    def _ratio(self, sums: dict[str, float], where: str) -> float | None:
        return sums[where] / self._values[where] if self._values[where] else None


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


SEED = 20_000
# a row of `crops.ROWS` -> where a report has its scores of whole pictures
WHOLE = {"painted": "painted_vs_test", "copied": "copied_vs_test", "unpainted": "base_vs_test", "real": "train_vs_test"}


def painter(trained: TrainedGenerator, device: torch.device) -> Callable[[Batch], torch.Tensor]:
    """Batch -> images in [0, 1] by the trained generator, with its background blend."""
    generator = trained.build().to(device)
    margin = trained.cfg.MODEL.GENERATOR.BLEND_MARGIN

    def paint(batch: Batch) -> torch.Tensor:
        return blend(generator(batch.inputs).float(), batch.base, batch.masks, margin)

    return paint


def left_alone(batch: Batch) -> torch.Tensor:
    """The base images."""
    return batch.base


def pasted(batch: Batch) -> torch.Tensor:
    """The real defects on the base images."""
    defects = batch.defects.unflatten(1, (-1, 3)).amax(1)
    return torch.where(defects.amax(1, keepdim=True) > 0, defects, batch.base)


def made_set(
    paint: Callable[[Batch], torch.Tensor],
    data: TrainingData,
    extractor: Extractor,
    *,
    count: int,
    batch: int,
    device: str = "",
) -> Features:
    """The features of `count` images that `paint` makes of base tiles of the training set, the same for each paint.

    Raises:
        UserError: the weights do not fit the data.
    """
    batches: Iterator[torch.Tensor] = painted_batches(
        paint, data.draw, choose_device(device), count=count, batch=batch, seed=SEED
    )
    return extract(extractor, batches)


def evaluate_trained(
    trained: TrainedGenerator, data: TrainingData, extractor: Extractor, *, count: int, cache: Path, device: str = ""
) -> dict[str, Any]:
    """Scores of painted against test tiles; of copied defects, of base tiles left alone, and of train tiles, which are
    what real images reach; and what painting has changed where no mask asked for it.

    Every painted image carries a defect and most test tiles do not, so the first distance has a part that no quality
    removes, and base tiles may come out better; the source has it as well. `crops.evaluate_crops` sees the defects.

    Args:
        trained: the weights.
        data: with train and test tiles.
        extractor: the feature network.
        count: images of each set, at most.
        cache: folder for the features of real tiles.
        device: of the generator.

    Raises:
        UserError: there are too few tiles, or one cannot be read.
    """
    side, batch = trained.cfg.INPUT.SIZE, trained.cfg.TEST.BATCH
    test = real_features(data.test_tiles, side, extractor, count=count, cache=cache)
    background = BackgroundChange()
    paint = background.watching(painter(trained, choose_device(device)))
    paints = {"painted": paint, "copied": pasted, "base": left_alone}
    sets = {
        name: made_set(paint, data, extractor, count=count, batch=batch, device=device)
        for name, paint in paints.items()
    }
    sets["train"] = real_features(data.train_tiles, side, extractor, count=count, cache=cache)
    return {
        "weights": trained.source,
        "weights_sha256": trained.digest,
        "extractor": extractor.name,
        "seed": SEED,
        **{f"{name}_vs_test": score(test, own).results()[extractor.label] for name, own in sets.items()},
        "background": background.results(),
    }
