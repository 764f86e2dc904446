"""What `evaluate` says about a trained GAN: scores, the memorisation check, nearest neighbours."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from fvcore.common.config import CfgNode

from car_gan.crops.dataset import CropDataset, crops_of, has_ground
from car_gan.output import made_folder
from gan_plugin.errors import UserError
from gan_plugin.evaluation.image_features import Features, as_bytes, extract
from gan_plugin.evaluation.image_scores import ImageScores, score
from gan_plugin.files import write_whole

from .pictures import sheet, write_picture
from .scores import CarFeatures, Memorisation, OnGround, Scorer, memorisation, nearest
from .trained import Trained

_NEIGHBOURS = 8


@dataclass(frozen=True)
class Evaluation:
    """What is known of a generator.

    Attributes:
        scores: of the images as they are.
        on_ground: of the cars keyed and put on TEST.BACKGROUND; None without one, or if crops cannot be keyed.
        check: for memorised crops.
        neighbours: samples above their nearest training crops, (H, W, 3) bytes.
        placed: crops above samples as `on_ground` sees them; None without a background.
    """

    scores: ImageScores
    on_ground: ImageScores | None
    check: Memorisation
    neighbours: np.ndarray
    placed: np.ndarray | None


def evaluate_trained(trained: Trained, output: Path, *, truncation: float = 0.0) -> Evaluation:
    """Score a generator and compare it with its crops.

    Writes scores.json, scores_on_ground.json, memorisation.json, neighbours.png and on_ground.png.

    Args:
        trained: the generator.
        output: folder, made if need be.
        truncation: of the latents, 0 for none.

    Raises:
        UserError: the crops or the feature network's weights cannot be used, or the folder not be written.
    """
    made_folder(output)
    cfg = trained.cfg
    crops = crops_of(cfg)
    scorer = Scorer(cfg, crops, trained.run / "reference")
    fake = scorer.generated(trained.generator, truncation)
    scores = score(scorer.real, fake)
    check, neighbours = _look_for_copies(trained, crops, scorer, fake, output, truncation)
    on_ground, placed = (
        _on_ground(trained, crops, truncation) if cfg.TEST.BACKGROUND and has_ground(crops) else (None, None)
    )
    facts = _facts(trained, truncation)
    _write_json(output / "scores.json", {**facts, **asdict(scores)})
    if on_ground is not None and placed is not None:
        _write_json(output / "scores_on_ground.json", {**facts, **asdict(on_ground)})
        write_picture(output / "on_ground.png", placed)
    else:
        # of an earlier evaluation
        for name in ("scores_on_ground.json", "on_ground.png"):
            (output / name).unlink(missing_ok=True)
    return Evaluation(scores, on_ground, check, neighbours, placed)


def check_copies(trained: Trained, output: Path) -> Memorisation:
    """Look for memorised crops and for nothing else; writes memorisation.json and neighbours.png.

    Arguments and errors as in `evaluate_trained`, whose check is the same.
    """
    made_folder(output)
    crops = crops_of(trained.cfg)
    features = CarFeatures(trained.cfg, crops, trained.run / "reference")
    return _look_for_copies(trained, crops, features, features.generated(trained.generator), output)[0]


def _look_for_copies(
    trained: Trained, crops: CropDataset, features: CarFeatures, fake: Features, output: Path, truncation: float = 0.0
) -> tuple[Memorisation, np.ndarray]:
    train = features.everything(crops)
    check = memorisation(fake, train, _held_out(trained.cfg, features))
    neighbours = neighbour_sheet(trained, crops, features, train, truncation)
    _write_json(output / "memorisation.json", {**_facts(trained, truncation), **check.to_dict()})
    write_picture(output / "neighbours.png", neighbours)
    return check, neighbours


def _facts(trained: Trained, truncation: float) -> dict[str, Any]:
    return {"run": str(trained.run), "weights": trained.weights.name, "truncation": truncation}


def _on_ground(trained: Trained, crops: CropDataset, truncation: float) -> tuple[ImageScores, np.ndarray]:
    cfg = trained.cfg
    scorer = Scorer(cfg, crops, trained.run / "reference", cfg.TEST.BACKGROUND)
    place = cast(OnGround, scorer.extractor).place_cars
    images = trained.images(trained.latents(_NEIGHBOURS, cfg.SEED, truncation))
    shown = [crops.pixels(index * len(crops) // _NEIGHBOURS) for index in range(_NEIGHBOURS)]
    both = torch.cat([place(torch.stack(shown)), place(as_bytes(images, alpha=True))])
    return scorer(trained.generator, truncation), sheet(both.float() / 127.5 - 1, _NEIGHBOURS)


def neighbour_sheet(
    trained: Trained, crops: CropDataset, features: CarFeatures, train: Features, truncation: float = 0.0
) -> np.ndarray:
    """Eight samples above the training crops that are nearest to them in feature space."""
    images = trained.images(trained.latents(_NEIGHBOURS, trained.cfg.SEED, truncation))
    _, indices = nearest(extract(features.extractor, [as_bytes(images)]).values, train.values)
    real = torch.stack([crops[index] for index in indices.tolist()])
    return sheet(torch.cat([images, real]), _NEIGHBOURS)


def _held_out(cfg: CfgNode, features: CarFeatures) -> Features | None:
    try:
        return features.everything(crops_of(cfg, "held_out"))
    except UserError:
        return None  # a data set of one source image, or HELD_OUT 0


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=1) + "\n")
