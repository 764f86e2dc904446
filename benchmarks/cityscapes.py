"""The two ways to the Cityscapes instance AP side by side, on made-up images."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from PIL import Image

from gan_plugin.evaluation.cityscapes import CityscapesInstanceMetrics, FastCityscapesInstanceEvaluator
from gan_plugin.evaluation.instance_ids import EVALUATED

NAME = "benchmark_cityscapes"
WAYS = ("official", "fast", "fast from RLE")


def measure_cityscapes(images: int, instances: int, width: int, height: int) -> dict[str, Any]:
    """Time `TEST.CITYSCAPES_EVALUATOR` official and fast on the same predictions, process and evaluate together.

    Args:
        images: number of images, each with `instances` objects in the truth and as many predictions, which are the
            objects' own ellipses, shifted; later objects hide earlier ones in the truth only.
        width, height: of the images in pixels.

    Returns:
        {"seconds": {way: total}, "speedup": {way: official's seconds / its}, "difference": greatest difference of a
        number in percent, "AP": the official one in percent, "images", "instances", "size"}; the ways are `WAYS`.
    """
    seconds = dict.fromkeys(WAYS, 0.0)
    with tempfile.TemporaryDirectory(prefix="bench_cityscapes_") as root, _registered(root):
        evaluators: dict[str, DatasetEvaluator] = {
            "official": CityscapesInstanceMetrics(NAME),
            "fast": FastCityscapesInstanceEvaluator(NAME),
            "fast from RLE": FastCityscapesInstanceEvaluator(NAME),
        }
        for evaluator in evaluators.values():
            evaluator.reset()
        for number in range(images):
            record, found = _make_image(Path(root), number, instances, width, height)
            outputs = dict.fromkeys(WAYS, [{"instances": found}]) | {"fast from RLE": [{"instances": _encoded(found)}]}
            for way, evaluator in evaluators.items():
                start = time.perf_counter()
                evaluator.process([record], outputs[way])
                seconds[way] += time.perf_counter() - start
        scores = {}
        for way, evaluator in evaluators.items():
            start = time.perf_counter()
            scores[way] = evaluator.evaluate()["cityscapes"]
            seconds[way] += time.perf_counter() - start
    official = scores["official"]
    return {
        "seconds": seconds,
        "speedup": {way: seconds["official"] / seconds[way] for way in WAYS},
        "difference": max(abs(official[key] - scores[way][key]) for way in WAYS for key in official),
        "AP": official["AP"],
        "images": images,
        "instances": instances,
        "size": f"{width}x{height}",
    }


@contextlib.contextmanager
def _registered(root: str) -> Iterator[None]:
    MetadataCatalog.get(NAME).set(thing_classes=list(EVALUATED.values()), gt_dir=root)
    try:
        yield
    finally:
        MetadataCatalog.remove(NAME)


def _make_image(root: Path, number: int, count: int, width: int, height: int) -> tuple[dict[str, Any], Instances]:
    """The record of an image whose truth is now under `root`, and the predictions for it."""
    random = np.random.default_rng(number)
    # 7 is road; its lowest strip is the ego vehicle, void
    ids = np.full((height, width), 7, np.uint16)
    ids[-height // 10 :] = 1
    masks = np.zeros((count, height, width), bool)
    classes = np.arange(count) % len(EVALUATED)
    for index, mask in enumerate(masks):
        centre, radii = random.random(2) * (height, width), (0.02 + 0.08 * random.random(2)) * height
        number_in_class = 1000 * list(EVALUATED)[classes[index]] + index
        ids[_ellipse(ids.shape, centre, radii)] = number_in_class
        mask |= _ellipse(ids.shape, centre + random.normal(size=2) * radii / 10, radii)
    (root / "city").mkdir(exist_ok=True)
    stem = f"city_{number:06d}_000019"
    Image.fromarray(ids).save(root / "city" / f"{stem}_gtFine_instanceIds.png")
    found = Instances((height, width), pred_masks=torch.from_numpy(masks), pred_classes=torch.from_numpy(classes))
    found.scores = torch.from_numpy(random.random(count).astype(np.float32))
    return {"file_name": f"city/{stem}_leftImg8bit.png"}, found


def _ellipse(shape: tuple[int, ...], centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    rows, columns = (
        ((np.arange(side) - middle) / radius) ** 2 for side, middle, radius in zip(shape, centre, radii, strict=True)
    )
    return rows[:, None] + columns < 1


def _encoded(found: Instances) -> Instances:
    columns = {"pred_classes": found.pred_classes, "scores": found.scores}
    masks = [rle.encode(np.asfortranarray(mask.numpy().view(np.uint8))) for mask in found.pred_masks]
    return Instances(found.image_size, pred_masks=masks, **columns)
