"""AP image by image, as instance segmentation tutorials report it: AP, cAP (by class) and rAP (over thresholds).

These are not COCO's AP: each image has its own precision-recall curve, and the curves' areas are averaged. A score
is therefore never compared with one of another image, and an image with one object weighs as much as one with fifty.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from pycocotools.coco import COCO

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImagePairs:
    """The P predictions and G objects of one image.

    Attributes:
        scores: (P,), any range.
        classes: (P,) whole numbers.
        truth_classes: (G,) whole numbers.
        iou: (P, G) in [0, 1], intersection over union of masks.
        crowd: (P,) in [0, 1], the greatest share of the prediction that lies on one region of its class whose objects
            are not told apart; None if the image has no such region.
    """

    scores: np.ndarray
    classes: np.ndarray
    truth_classes: np.ndarray
    iou: np.ndarray
    crowd: np.ndarray | None = None

    def of_class(self, number: int) -> "ImagePairs":
        """Only the predictions and the objects of class `number`."""
        found, truth = self.classes == number, self.truth_classes == number
        crowd = None if self.crowd is None else self.crowd[found]
        return ImagePairs(
            self.scores[found], self.classes[found], self.truth_classes[truth], self.iou[found][:, truth], crowd
        )


def pairs_of(
    scores: np.ndarray,
    classes: np.ndarray,
    masks: Sequence[Any],
    truth_classes: np.ndarray,
    truth_masks: Sequence[Any],
    region_classes: np.ndarray,
    region_masks: Sequence[Any],
) -> ImagePairs:
    """The pairs of an image from masks as run-length codes.

    Args:
        scores, classes, masks: of the P predictions.
        truth_classes, truth_masks: of the G objects.
        region_classes, region_masks: of the regions whose objects are not told apart (iscrowd).
    """
    own = classes[:, None] == region_classes[None, :]
    on_region = _overlaps(masks, region_masks, crowd=True)
    return ImagePairs(
        scores=scores,
        classes=classes,
        truth_classes=truth_classes,
        iou=_overlaps(masks, truth_masks, crowd=False),
        crowd=np.where(own, on_region, 0).max(axis=1) if len(region_masks) else None,
    )


def _overlaps(masks: Sequence[Any], truth: Sequence[Any], crowd: bool) -> np.ndarray:
    """(P, T) IoU, or with `crowd` the intersection over the prediction's own area."""
    if not len(masks) or not len(truth):
        return np.zeros((len(masks), len(truth)))
    return mask_util.iou(list(masks), list(truth), [int(crowd)] * len(truth))


def match(pairs: ImagePairs, threshold: float = 0.5) -> np.ndarray:
    """Assign objects to predictions, one to one.

    In the order of falling scores (the earlier first among equals) each prediction takes the object of its class with
    the greatest IoU that is still free, if that IoU is above `threshold`.

    Returns:
        (P,), in that order: the object's index, or -1. An unmatched prediction with more than `threshold` of its
        area on a crowd region is neither right nor wrong, as in COCO, and is left out: there are fewer than P then.
    """
    order = np.argsort(-pairs.scores, kind="stable")
    free = pairs.classes[:, None] == pairs.truth_classes[None, :]
    matches = np.full(len(order), -1)
    for position, prediction in enumerate(order):
        candidates = np.where(free[prediction], pairs.iou[prediction], -1.0)
        if candidates.size and candidates.max() > threshold:
            matches[position] = candidates.argmax()
            free[:, matches[position]] = False
    if pairs.crowd is None:
        return matches
    return matches[(matches >= 0) | (pairs.crowd[order] <= threshold)]


def average_precision(matches: np.ndarray, truth_count: int) -> float:
    """Area under one image's precision-recall curve, the precision raised to the best at any higher recall (VOC).

    Args:
        matches: (P,), by falling score; -1 is a false positive.
        truth_count: the number of objects.

    Returns:
        In [0, 1]; 0 without predictions. NaN without objects, where recall is not defined.
    """
    if truth_count == 0:
        return math.nan
    right = np.cumsum(matches >= 0)
    precision = right / np.arange(1, len(matches) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(right, prepend=0) / truth_count
    return float(np.sum(steps * envelope))


def image_ap(pairs: ImagePairs, threshold: float = 0.5) -> float:
    """AP of one image at one IoU threshold, over all its classes at once; NaN if the image holds no object."""
    return average_precision(match(pairs, threshold), len(pairs.truth_classes))


def range_ap(pairs: ImagePairs, thresholds: Sequence[float] = THRESHOLDS) -> float:
    """rAP of one image: the mean of its APs at 0.50, 0.55, ..., 0.95; NaN if the image holds no object."""
    return float(np.mean([image_ap(pairs, threshold) for threshold in thresholds]))


def class_aps(pairs: ImagePairs, class_count: int, threshold: float = 0.5, count_absent: bool = False) -> np.ndarray:
    """AP of one image for each class, on the predictions and objects of that class alone.

    Args:
        pairs: of the image.
        class_count: C; the classes are 0 to C - 1.
        threshold: of IoU.
        count_absent: what a class without an object in this image gets: NaN if False; if True 1 where nothing of that
            class is predicted (outside of its crowd regions) and 0 where something is.

    Returns:
        (C,) in [0, 1] or NaN.
    """
    aps = np.full(class_count, math.nan)
    for number in range(class_count):
        of_class = pairs.of_class(number)
        aps[number] = image_ap(of_class, threshold)
        if count_absent and math.isnan(aps[number]):
            aps[number] = float(len(match(of_class, threshold)) == 0)
    return aps


def mean_of_defined(values: Iterable[float]) -> float:
    """The mean of all that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def contiguous_class(metadata: Metadata, annotation: Mapping[str, Any]) -> int:
    """The class of a COCO annotation as models number it, from 0 on."""
    number: int = annotation["category_id"]
    classes = metadata.get("thing_dataset_id_to_contiguous_id")
    return classes[number] if classes else number


class PerImageAP(DatasetEvaluator):
    """AP, cAP and rAP over the masks of the images that are processed, in percent.

    Args:
        dataset_name: a registered data set with `thing_classes` in its metadata.
        truth: its annotations in COCO's format, such as COCOEvaluator makes of any data set.
    """

    def __init__(self, dataset_name: str, truth: COCO) -> None:
        self._metadata = MetadataCatalog.get(dataset_name)
        self._classes: list[str] = self._metadata.thing_classes
        self._truth = truth
        self.reset()

    def reset(self) -> None:
        # by image id: AP, rAP, and the APs of each class with absent ones as NaN and as 0 or 1
        self._scores: dict[Any, tuple[float, float, np.ndarray, np.ndarray]] = {}

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        for record, output in zip(inputs, outputs, strict=True):
            pairs = self._pairs(record["image_id"], output["instances"].to("cpu"))
            by_class = [class_aps(pairs, len(self._classes), count_absent=count) for count in (False, True)]
            self._scores[record["image_id"]] = (image_ap(pairs), range_ap(pairs), by_class[0], by_class[1])

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Average everything processed since `reset`; a collective call, so every rank has to make it.

        Returns:
            {"per_image": scores} in percent on the main process, None on the others. "AP" (IoU 0.5, all classes
            together) and "rAP" are means over the images that hold an object. "cAP-<class>" is a mean over the images
            that hold the class, "cAP" the mean of these. "cAP_counted" is cAP with every image counting for every
            class: 1 where a class is neither there nor predicted, 0 where it is only predicted. A score that no
            image defines is left out.
        """
        gathered = comm.gather(self._scores)
        if not comm.is_main_process():
            return None
        by_image = {image_id: scores for part in gathered for image_id, scores in part.items()}
        aps, raps, skipping, counting = zip(*by_image.values(), strict=True) if by_image else ((), (), (), ())
        by_class = [mean_of_defined(column) for column in np.reshape(skipping, (-1, len(self._classes))).T]
        scores = {
            "AP": mean_of_defined(aps),
            "cAP": mean_of_defined(by_class),
            "rAP": mean_of_defined(raps),
            "cAP_counted": mean_of_defined(np.ravel(counting)),
            **{f"cAP-{name}": value for name, value in zip(self._classes, by_class, strict=True)},
        }
        scores = {name: 100 * value for name, value in scores.items() if not math.isnan(value)}
        if scores:
            _logger.info("AP image by image:\n" + create_small_table(scores))
        else:
            _logger.warning("No image was evaluated, so there is no per-image AP.")
        return OrderedDict(per_image=scores)

    def _pairs(self, image_id: Any, instances: Instances) -> ImagePairs:
        masks = np.asarray(instances.pred_masks, dtype=np.uint8)
        found = mask_util.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
        annotations = self._truth.imgToAnns.get(image_id, [])
        objects = [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
        regions = [annotation for annotation in annotations if annotation.get("iscrowd", 0)]
        return pairs_of(
            np.asarray(instances.scores),
            np.asarray(instances.pred_classes),
            found,
            self._classes_of(objects),
            [self._truth.annToRLE(annotation) for annotation in objects],
            self._classes_of(regions),
            [self._truth.annToRLE(annotation) for annotation in regions],
        )

    def _classes_of(self, annotations: list[dict[str, Any]]) -> np.ndarray:
        return np.array([contiguous_class(self._metadata, annotation) for annotation in annotations], dtype=int)
