"""Metrics on resampled test images: what a difference would be with other seeds and other images of the same kind."""

import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gan_plugin.config_files import flat, read_yaml
from gan_plugin.evaluation.build import COCO_DETECTIONS, evaluated_detections
from gan_plugin.evaluation.truth_boxes import SCORES_FILE, TASK, boundary_band
from gan_plugin.visualization.panels import Instance, instances_of_record
from gan_plugin.visualization.run_files import results_file, stored_predictions

from .arms import BASELINE
from .plan import MAIN, MAIN_IN_TRUTH_BOXES, MODEL_A, Plan
from .statistics import t_reach

RESAMPLES = 1000
_SEED = 0
_RECALLS = np.linspace(0, 1, 101)
# of mask IoU, below which an outline need not be looked at: no threshold is that low
_LEAST_IOU = 0.5


Runs = Mapping[str, Mapping[str, Any]]
Scores = dict[tuple[str, str, str], np.ndarray]


def resampled_scores(plan: Plan, output: Path, runs: Runs) -> Scores:
    """The main metrics that are of masks, of each run that has left its predictions, on all images and on resamples.

    Args:
        plan: of the comparison.
        output: its folder.
        runs: arm -> seed -> {"folder", "metrics"}, as in results.json.

    Returns:
        (metric, arm, seed) -> (1 + RESAMPLES,) in percent; that on all images first.
    """
    name = plan.split.names[2]
    metrics = [metric for metric in plan.main if metric in (*MAIN, *MAIN_IN_TRUTH_BOXES)]
    finished = [
        (arm, seed) for arm, seeds in runs.items() if arm != MODEL_A for seed in seeds if seeds[seed]["metrics"]
    ]
    if not metrics or not finished or name not in DatasetCatalog:
        return {}
    records = DatasetCatalog.get(name)
    weights = np.vstack([np.ones((1, len(records)), int), image_weights(len(records))])
    scores: Scores = {}
    for arm, seed in finished:
        folder = output / runs[arm][seed]["folder"]
        # of a run whose files are cut off or of other images there is no interval
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = stored_predictions(folder, name, records)
            for metric in set(metrics) & set(MAIN):
                by_outline, detections = metric == "boundary/AP", _detections(plan, arm)
                matches = match_images(records, found, boundary=by_outline, detections=detections)
                scores[metric, arm, seed] = resampled_ap(matches, weights)
        with suppress(OSError, ValueError, KeyError, TypeError):
            file = results_file(folder, name, several=False).with_name(SCORES_FILE)
            objects = json.loads(file.read_text(encoding="utf-8"))
            for metric in set(metrics) & set(MAIN_IN_TRUTH_BOXES):
                scores[metric, arm, seed] = resampled_mean(records, objects, metric.removeprefix(f"{TASK}/"), weights)
    return scores


def resampled_gaps(scores: Scores, metric: str, arm: str, reference: str = BASELINE) -> np.ndarray | None:
    """(n, 1 + RESAMPLES) differences in percent points of n seeds, as `resampled_scores` has them; None for n < 2."""
    seeds = [s for m, a, s in scores if (m, a) == (metric, arm) and (metric, reference, s) in scores]
    if len(seeds) < 2:
        return None
    return np.stack([scores[metric, arm, seed] - scores[metric, reference, seed] for seed in seeds])


def _detections(plan: Plan, arm: str) -> int:
    """How many of an image the evaluation of an arm's runs has looked at."""
    key = "TEST.DETECTIONS_PER_IMAGE"
    config = flat(read_yaml(plan.config, "The config of the comparison"))
    return evaluated_detections({**config, **plan.stage_b, **plan.arms.get(arm, {})}.get(key, COCO_DETECTIONS))


@dataclass(frozen=True)
class ClassMatches:
    """The D detections of one class in I images, by falling score.

    Attributes:
        image: (D,) numbers of their images.
        right: (10, D) bool, whether each found an object at IoU 0.5, 0.55, ..., 0.95.
        counts: (10, D) bool, whether it is right or wrong, and not on a crowd region.
        objects: (I,) how many objects there are to find.
    """

    image: np.ndarray
    right: np.ndarray
    counts: np.ndarray
    objects: np.ndarray


def match_images(
    records: Sequence[Mapping[str, Any]],
    predictions: Mapping[Any, Sequence[Instance]],
    *,
    boundary: bool,
    detections: int = COCO_DETECTIONS,
) -> list[ClassMatches]:
    """Match predicted masks with the truth as COCO's evaluation does, objects of all sizes.

    Args:
        records: of the test set, as Detectron2 keeps them.
        predictions: by image_id.
        boundary: by the smaller of mask IoU and boundary IoU (Cheng et al. 2021) instead of mask IoU.
        detections: at most so many of a class in an image, the surest first.

    Returns:
        One for each class that has an object or a prediction.
    """
    truth = _coco(records)
    found = [
        {"image_id": number, "category_id": each.label, "segmentation": each.rle, "score": each.score}
        for number, record in enumerate(records)
        for each in predictions.get(record["image_id"], ())
    ]
    if not found:
        return [_of_class([], _objects(truth, category)) for category in truth.getCatIds()]
    # pycocotools tells of its progress
    with redirect_stdout(StringIO()):
        evaluation = (_BoundaryEval if boundary else COCOeval)(truth, truth.loadRes(found), "segm")
        evaluation.params.maxDets = [detections]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.catIds = sorted({*truth.getCatIds(), *(each["category_id"] for each in found)})
        evaluation.evaluate()
    images = len(records)
    return [
        _of_class(evaluation.evalImgs[at * images : (at + 1) * images], _objects(truth, category))
        for at, category in enumerate(evaluation.params.catIds)
    ]


def resampled_ap(matches: Sequence[ClassMatches], weights: np.ndarray) -> np.ndarray:
    """COCO's AP, in percent, with each image taken as often as `weights` says.

    Args:
        matches: of all classes; those without an object among the images taken do not count.
        weights: (B, I) whole numbers.

    Returns:
        (B,), NaN where the images taken have no object.
    """
    by_class = np.stack([_class_ap(each, weights) for each in matches])
    defined = ~np.isnan(by_class)
    with np.errstate(invalid="ignore"):
        return 100 * np.where(defined, by_class, 0).sum(0) / defined.sum(0)


def resampled_mean(
    records: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]], measure: str, weights: np.ndarray
) -> np.ndarray:
    """The mean over objects, in percent, with each image taken as often as `weights` says.

    Args:
        records: of the test set.
        objects: each with its "image_id" and, under `measure`, a number in [0, 1].
        weights: (B, I) whole numbers.

    Returns:
        (B,), NaN where the images taken have no object.
    """
    numbers = {record["image_id"]: number for number, record in enumerate(records)}
    image = [numbers[each["image_id"]] for each in objects]
    sums = np.bincount(image, [each[measure] for each in objects], minlength=len(records))
    counts = weights @ np.bincount(image, minlength=len(records))
    return 100 * np.divide(weights @ sums, counts, out=np.full(len(weights), np.nan), where=counts > 0)


def image_weights(images: int, resamples: int = RESAMPLES) -> np.ndarray:
    """(resamples, images): how often each image is drawn when as many are drawn with replacement; always the same."""
    return np.random.default_rng(_SEED).multinomial(images, np.full(images, 1 / images), resamples)


@dataclass(frozen=True)
class Variances:
    """What the mean difference of n seeds on I images owes to chance, in squared percent points.

    Attributes:
        seeds: to the draw of seeds, each on these images; n - 1 degrees of freedom.
        images: to the draw of images, in so far as all seeds agree about them; I - 1 degrees of freedom.
        own: what of `seeds` is because each seed finds other images easy.
    """

    seeds: float
    images: float
    own: float


def variances(gaps: np.ndarray, images: int) -> Variances | None:
    """The variances of the mean of n seeds, from a bootstrap over the I images that draws the same ones for all seeds.

    Drawing seeds with replacement as well, for each draw of images, would count `own` three times: in either draw, and
    in both together. So what seeds add is taken from their differences on all images. What remains of the bootstrap's
    variance, once the seeds' own images are averaged out of it, is the images'.

    Args:
        gaps: (n, 1 + B) difference of each seed on all images and on each resample of them.
        images: I.

    Returns:
        None for fewer than two seeds, or without two resamples that all seeds have a number for.
    """
    n, whole = len(gaps), gaps[:, 0]
    drawn = gaps[:, 1:][:, ~np.isnan(gaps[:, 1:]).any(axis=0)]
    if n < 2 or drawn.shape[1] < 2 or np.isnan(whole).any():
        return None
    # I of I drawn with replacement vary too little, by (I - 1) / I
    rise = images / max(1, images - 1)
    single, together = drawn.var(axis=1, ddof=1).mean() * rise, drawn.mean(axis=0).var(ddof=1) * rise
    own = max(0.0, float(single - together) / (n - 1))
    return Variances(float(whole.var(ddof=1)) / n, max(0.0, float(together) - own), own)


def hierarchical_interval(gaps: np.ndarray, images: int) -> tuple[float, float] | None:
    """The interval of 95 % of a mean difference when seeds and images are both drawn anew.

    By Student's t with the degrees of freedom that two estimated variances have together (Satterthwaite 1946): a
    percentile interval over five seeds holds the truth in 84 % of cases.

    Args:
        gaps, images: see `variances`, as is when there is None.
    """
    found = variances(gaps, images)
    if found is None:
        return None
    total = found.seeds + found.images
    spread = found.seeds**2 / (len(gaps) - 1) + found.images**2 / max(1, images - 1)
    reach = t_reach(total**2 / spread) * total**0.5 if spread else 0.0
    mean = float(gaps[:, 0].mean())
    return mean - reach, mean + reach


class _BoundaryEval(COCOeval):
    """COCO's evaluation by the smaller of mask IoU and boundary IoU."""

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803  (pycocotools' names)
        ious = super().computeIoU(imgId, catId)
        if not len(ious):
            return ious
        objects = self._gts[imgId, catId]
        ranked = sorted(self._dts[imgId, catId], key=lambda one: -one["score"])[: len(ious)]
        bands = [[_band(one) for one in side] for side in (ranked, objects)]
        for i, j in np.argwhere(ious >= _LEAST_IOU):
            # a crowd region has no outline that could be met
            if not objects[j]["iscrowd"]:
                found, truth = bands[0][i], bands[1][j]
                ious[i, j] = min(ious[i, j], (found & truth).sum() / max(1, (found | truth).sum()))
        return ious


def _band(one: Mapping[str, Any]) -> np.ndarray:
    return boundary_band(rle_tools.decode(one["segmentation"]) > 0)


def _coco(records: Sequence[Mapping[str, Any]]) -> COCO:
    """The truth of a data set, its images numbered as they come and its classes as the model numbers them."""
    coco = COCO()
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        for crowd in (0, 1):
            all_of = record.get("annotations", ())
            own = [{**one, "iscrowd": 0} for one in all_of if bool(one.get("iscrowd", 0)) == bool(crowd)]
            for each in instances_of_record({**record, "annotations": own}):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": each.label,
                        "segmentation": each.rle,
                        "area": int(rle_tools.area(each.rle)),
                        "bbox": rle_tools.toBbox(each.rle).tolist(),
                        "iscrowd": crowd,
                    }
                )
    images = [{"id": i, "height": each["height"], "width": each["width"]} for i, each in enumerate(records)]
    categories = [{"id": label, "name": str(label)} for label in sorted({one["category_id"] for one in annotations})]
    coco.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    coco.createIndex()
    return coco


def _objects(truth: COCO, category: int) -> np.ndarray:
    counts = np.zeros(len(truth.dataset["images"]))
    for one in truth.dataset["annotations"]:
        counts[one["image_id"]] += one["category_id"] == category and not one["iscrowd"]
    return counts


def _of_class(of_images: Sequence[Mapping[str, Any] | None], objects: np.ndarray) -> ClassMatches:
    known = [(number, each) for number, each in enumerate(of_images) if each is not None]
    image = np.concatenate([np.full(len(e["dtScores"]), i) for i, e in known] or [np.zeros(0, int)]).astype(int)
    scores = np.concatenate([e["dtScores"] for _, e in known] or [np.zeros(0)])
    order = np.argsort(-scores, kind="mergesort")
    right = np.concatenate([e["dtMatches"] > 0 for _, e in known] or [np.zeros((10, 0), bool)], axis=1)
    ignored = np.concatenate([e["dtIgnore"] > 0 for _, e in known] or [np.zeros((10, 0), bool)], axis=1)
    return ClassMatches(image[order], right[:, order], ~ignored[:, order], objects)


def _class_ap(matches: ClassMatches, weights: np.ndarray) -> np.ndarray:
    objects = weights @ matches.objects
    result = np.full(len(weights), np.nan)
    for number in np.flatnonzero(objects):
        times = weights[number, matches.image] * matches.counts
        right, all_of = np.cumsum(times * matches.right, axis=1), np.cumsum(times, axis=1)
        precision = right / np.maximum(all_of, np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = right / objects[number]
        result[number] = np.mean([_at_recalls(r, e) for r, e in zip(recall, envelope, strict=True)])
    return result


def _at_recalls(recall: np.ndarray, envelope: np.ndarray) -> float:
    """The mean precision at 101 recalls, 0 where a recall is not reached."""
    places = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.where(places < len(envelope), np.append(envelope, 0.0)[places], 0.0).mean())
