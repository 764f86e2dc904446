"""The source's protocol: painted against test tiles, and train against test tiles as the reference (thesis 4.5.2)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from coigan.engine.batch import Batch, blend
from coigan.engine.players import choose_device
from coigan.engine.training import TrainingData
from coigan.inference.weights import TrainedGenerator
from gan_plugin.evaluation.image_features import Extractor, Features, extract
from gan_plugin.evaluation.image_scores import score

from .background import BackgroundChange
from .features import painted_batches, real_features

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
