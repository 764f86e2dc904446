"""Scores that see the defects: crops of objects in painted and in real pictures, as a feature network sees them.

Where one scores whole pictures, as the thesis does, painting nothing may win: most of a picture is background, and the
base images are real. Here only objects count, so that a label without a defect is what it is: another kind of crop.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from yacs.config import CfgNode

from coigan.augmentation import Paint, RealObjects, Source, copy_paste, is_visible, placements
from coigan.data.line_sets import LineSet
from coigan.data.objects import ObjectStore
from coigan.data.placer import Placement, Placer
from coigan.data.samples import augmentation_of, noise_of
from coigan.data.stages import Prepared
from coigan.inference import Inpainter, TrainedGenerator
from gan_plugin.data.pictures import read_rgb
from gan_plugin.evaluation.image_features import Extractor, cached_features, extract
from gan_plugin.evaluation.image_scores import FEWEST, frechet_distance, kernel_distance, neighbourhoods

# what is compared with real test objects, and what it is called in tables
ROWS = {
    "painted": "painted",
    "copied": "copy-paste",
    "unpainted": "unpainted base",
    "real": "real train against test",
}
POOLED = "all classes"
# of a crop, in pixels; that of Lite0's features
_SIDE = 128
# around the box: a part of its longer side, and at least so many pixels
_MARGIN, _LEAST_MARGIN = 0.125, 4
# slivers at the border of a tile show no defect
_LEAST_AREA = 16
_BATCH, _SEED, _VERSION = 32, 30_000, 1


@dataclass(frozen=True)
class Crops:
    """N objects as a network sees them.

    Attributes:
        values: (N, D) float32, their features.
        labels: (N,) their classes.
    """

    values: torch.Tensor
    labels: np.ndarray

    def of(self, label: int | None) -> torch.Tensor:
        """The features of a class, or of all for None."""
        return self.values if label is None else self.values[torch.from_numpy(self.labels == label)]


def crop(pixels: np.ndarray, mask: np.ndarray) -> torch.Tensor:
    """The box of an object with an eighth of its longer side, or four pixels, around it, as far as the picture goes.

    Args:
        pixels: (H, W, 3) uint8.
        mask: (H, W) bool, not empty.

    Returns:
        (3, 128, 128) uint8, resized by an antialiased bicubic filter.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    margin = max(_LEAST_MARGIN, round(_MARGIN * max(bottom - top, right - left)))
    window = pixels[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin]
    part = torch.from_numpy(np.ascontiguousarray(window)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(part, (_SIDE, _SIDE), mode="bicubic", antialias=True, align_corners=False)
    return resized[0].clamp(0, 255).round().to(torch.uint8)


def real_crops(lines: LineSet, extractor: Extractor, count: int, cache: Path) -> Crops:
    """At most `count` of the objects of annotated tiles, chosen at random; features come from `cache` if it has them.

    Raises:
        UserError: there is no object, or a picture or record is damaged.
    """
    places = [
        (number, place, region.label)
        for number, record in enumerate(lines.store)
        for place, region in enumerate(lines.regions(record))
        if region.area >= _LEAST_AREA
    ]
    if not places:
        return Crops(torch.zeros(0, 1), np.zeros(0, int))
    chosen = [places[place] for place in sorted(np.random.default_rng(_SEED).permutation(len(places))[:count])]
    stamps = [(lines.path(lines.store[number]).name, place) for number, place, _ in chosen]
    times = [lines.path(record).stat().st_mtime_ns for record in lines.store]
    digest = hashlib.sha256(f"{stamps} {times} {lines.store.checksum}".encode()).hexdigest()

    def crops() -> Iterator[torch.Tensor]:
        for number, place, _ in chosen:
            record = lines.store[number]
            pixels = lines.image(record)
            yield crop(pixels, lines.regions(record)[place].painted(*pixels.shape[:2]))

    features = cached_features(cache, f"crops {_VERSION} {digest}", extractor, _stacked(crops()))
    return Crops(features.values, np.array([label for *_, label in chosen], int))


def synthetic_crops(source: Source, paint: Paint, extractor: Extractor, count: int) -> tuple[Crops, tuple[int, int]]:
    """The first `count` objects of the pictures that `paint` makes, the same places and masks for each paint.

    Returns:
        The crops; how many labels are invisible (see `is_visible`), and of how many.

    Raises:
        UserError: nothing can be placed.
    """
    labels: list[int] = []
    seen: list[bool] = []

    def crops() -> Iterator[torch.Tensor]:
        for base, placement, seed in placements(source, count, _SEED):
            pixels = read_rgb(base)
            picture = paint(pixels, placement, seed)
            for label, mask, _ in placement.objects:
                seen.append(is_visible(pixels, picture, mask))
                if mask.sum() >= _LEAST_AREA and len(labels) < count:
                    labels.append(label)
                    yield crop(picture, mask)
            if len(labels) == count:
                return

    features = extract(extractor, _stacked(crops()))
    return Crops(features.values, np.array(labels, int)), (seen.count(False), len(seen))


def _stacked(crops: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    remaining = iter(crops)
    while part := list(islice(remaining, _BATCH)):
        yield torch.stack(part)


def crop_scores(real: Crops, rows: Mapping[str, Crops], classes: Sequence[str]) -> dict[str, Any]:
    """FID, KID, precision and recall of each row against `real`, of all classes together and of each.

    Every row is scored with as many crops, those of the shortest, since all of these scores depend on their number.

    Returns:
        Name of a class, or POOLED -> {"crops", "real_crops", "rows": {row: scores}}; rows is {} where six crops are not
        to be had.
    """
    results = {}
    for label, name in ((None, POOLED), *enumerate(classes)):
        reference, own = real.of(label), {row: crops.of(label) for row, crops in rows.items()}
        count = min(len(values) for values in own.values())
        found = {}
        if min(count, len(reference)) >= FEWEST:
            for row, values in own.items():
                draw = torch.Generator().manual_seed(_SEED)
                found[row] = _scores(reference, values[torch.randperm(len(values), generator=draw)[:count]])
        results[name] = {"crops": count, "real_crops": len(reference), "rows": found}
    return results


def _scores(real: torch.Tensor, values: torch.Tensor) -> dict[str, float]:
    near = neighbourhoods(real, values)
    return {
        "FID": frechet_distance(real, values),
        "KID": kernel_distance(real, values)[0],
        "precision": near["precision"],
        "recall": near["recall"],
    }


def evaluate_crops(
    trained: TrainedGenerator,
    prepared: Prepared,
    extractor: Extractor,
    *,
    count: int,
    cache: Path,
    device: str = "",
    against: str = "test",
) -> dict[str, Any]:
    """Crop scores of what a generator paints, of copied objects, of base images left as they are, and of real objects.

    All but the last are at the places and under the masks that `augment` would choose, so that numbers, classes and
    sizes of objects follow the real training tiles.

    Args:
        trained: the weights.
        prepared: the data set.
        extractor: the feature network.
        count: crops of each kind, at most.
        cache: folder for the features of real objects.
        device: of the generator.
        against: "test" or "train", whose real objects are the reference.

    Returns:
        {"extractor", "scores": see `crop_scores`, "invisible_labels": {row: [invisible, of how many]}}.

    Raises:
        UserError: the weights do not fit the data, or there is no object.
    """
    inpainter = Inpainter(trained, noise_of(trained.cfg), device)

    def by_generator(image: np.ndarray, placement: Placement, seed: int) -> np.ndarray:
        return inpainter.paint(image, placement.masks, seed)

    def left_alone(image: np.ndarray, placement: Placement, seed: int) -> np.ndarray:
        return image

    banks = _banks(trained.cfg)
    asked = _source(trained.cfg, prepared, banks)
    pasted = _source(trained.cfg, prepared) if banks else asked
    work = {"painted": (asked, by_generator), "copied": (pasted, copy_paste), "unpainted": (asked, left_alone)}
    made = {row: synthetic_crops(source, paint, extractor, count) for row, (source, paint) in work.items()}
    parts = {name: real_crops(LineSet(prepared.root / name), extractor, count, cache) for name in ("train", "test")}
    rows = {row: crops for row, (crops, _) in made.items()} | {"real": parts["test" if against == "train" else "train"]}
    return {
        "extractor": extractor.name,
        "scores": crop_scores(parts[against], rows, prepared.classes),
        "invisible_labels": {row: list(found) for row, (_, found) in made.items() if row != "unpainted"},
    }


def score_painter(
    cfg: CfgNode, prepared: Prepared, paint: Paint, extractor: Extractor, *, count: int, cache: Path
) -> dict[str, float]:
    """FID, KID, precision and recall of what `paint` makes against real test objects, all classes together.

    Returns:
        {} where six crops are not to be had; arguments and errors as of `evaluate_crops`.
    """
    made, _ = synthetic_crops(_source(cfg, prepared, _banks(cfg)), paint, extractor, count)
    real = real_crops(LineSet(prepared.root / "test"), extractor, count, cache)
    return crop_scores(real, {"painted": made}, ())[POOLED]["rows"].get("painted", {})


def can_score(prepared: Prepared, count: int) -> bool:
    """Whether the test tiles hold enough objects for scores of `count` crops."""
    tiles = LineSet(prepared.root / "test")
    held = sum(region.area >= _LEAST_AREA for record in tiles.store for region in tiles.regions(record))
    return min(held, count) >= FEWEST


def _banks(cfg: CfgNode) -> Sequence[str]:
    return cfg.DATA.SHAPE_BANKS if cfg.DATA.SHAPE_SOURCE == "generated" else ()


def _source(cfg: CfgNode, prepared: Prepared, banks: Sequence[str] = ()) -> Source:
    data = cfg.DATA
    shapes = [ObjectStore(Path(bank), masks_only=True) for bank in banks]
    stores = shapes or [ObjectStore(prepared.objects(number)) for number in range(len(prepared.classes))]
    placer = Placer(stores, prepared.tile, [0, 1], augmentation_of(cfg), data.OVERLAP)
    return Source(
        prepared.tiles("base"), placer, prepared.classes, RealObjects(LineSet(prepared.root / "train"), shapes)
    )
