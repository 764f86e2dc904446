"""The source's protocol: painted against test tiles, and train against test tiles as the reference (thesis 4.5.2)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from coigan.engine.batch import Batch, blend
from coigan.engine.players import choose_device
from coigan.engine.training import TrainingData
from coigan.inference.weights import TrainedGenerator
from gan_plugin.evaluation.image_features import Extractor, Features
from gan_plugin.evaluation.image_scores import score

from .background import BackgroundChange
from .features import painted_batches, painted_features, real_features

SEED = 20_000


def painter(trained: TrainedGenerator, device: torch.device) -> Callable[[Batch], torch.Tensor]:
    """Batch -> images in [0, 1] by the trained generator, with its background blend."""
    generator = trained.build().to(device)
    margin = trained.cfg.MODEL.GENERATOR.BLEND_MARGIN

    def paint(batch: Batch) -> torch.Tensor:
        return blend(generator(batch.inputs).float(), batch.base, batch.masks, margin)

    return paint


def painted_set(
    trained: TrainedGenerator,
    data: TrainingData,
    extractor: Extractor,
    *,
    count: int,
    batch: int,
    device: str = "",
    background: BackgroundChange | None = None,
) -> Features:
    """The features of `count` images that the trained generator paints on base tiles of the training set.

    Args:
        background: counts the images where there is one.

    Raises:
        UserError: the weights do not fit the data.
    """
    place = choose_device(device)
    paint = painter(trained, place)
    if background is not None:
        paint = background.watching(paint)
    batches: Iterator[torch.Tensor] = painted_batches(paint, data.draw, place, count=count, batch=batch, seed=SEED)
    return painted_features(extractor, batches)


def evaluate_trained(
    trained: TrainedGenerator, data: TrainingData, extractor: Extractor, *, count: int, cache: Path, device: str = ""
) -> dict[str, Any]:
    """Scores of painted against test tiles, and of train against test tiles, which is what real images reach; and what
    painting has changed where no mask asked for it.

    Every painted image carries a defect and most test tiles do not, so the first distance has a part that no quality
    removes; the source has it as well.

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
    train = real_features(data.train_tiles, side, extractor, count=count, cache=cache)
    background = BackgroundChange()
    painted = painted_set(trained, data, extractor, count=count, batch=batch, device=device, background=background)
    return {
        "weights": trained.source,
        "weights_sha256": trained.digest,
        "extractor": extractor.name,
        "seed": SEED,
        "painted_vs_test": score(test, painted).results()[extractor.label],
        "train_vs_test": score(test, train).results()[extractor.label],
        "background": background.results(),
    }
