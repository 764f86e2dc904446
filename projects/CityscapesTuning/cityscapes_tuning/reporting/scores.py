"""AP image by image of a variant's predictions, with intervals over images (slides, section 7)."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.comparison.statistics import bootstrap_interval
from gan_plugin.evaluation.per_image_ap import (
    THRESHOLDS,
    ImagePairs,
    class_aps,
    image_ap,
    mean_of_defined,
    pairs_of,
)
from gan_plugin.visualization.panels import Instance, instances_of_record, read_predictions

PREDICTIONS = Path("inference") / "coco_instances_results.json"
_WORTH_DRAWING = 0.5


@dataclass
class Judged:
    """A variant's predictions on the test part.

    Attributes:
        classes: their names.
        pairs: image id -> predictions and objects.
        predictions: image id -> predicted instances.
    """

    classes: tuple[str, ...]
    pairs: dict[Any, ImagePairs]
    predictions: dict[Any, list[Instance]]

    @cached_property
    def by_threshold(self) -> np.ndarray:
        """(images, 10) AP of each image at each IoU threshold, NaN for images without an object."""
        return np.array([[image_ap(pairs, t) for t in THRESHOLDS] for pairs in self.pairs.values()]).reshape(-1, 10)

    @cached_property
    def ap(self) -> list[float]:
        """AP at each threshold: the mean over images."""
        return [mean_of_defined(column) for column in self.by_threshold.T]

    @property
    def rap(self) -> float:
        """The mean of these ten."""
        return mean_of_defined(self.ap)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Bootstrap interval of AP at 0.5 over images."""
        return bootstrap_interval([value for value in self.by_threshold[:, 0] if not math.isnan(value)])

    @cached_property
    def class_ap(self) -> dict[str, float]:
        """cAP: class -> mean AP at 0.5 over the images that hold the class; NaN where none does."""
        return self._class_ap(count_absent=False)

    @cached_property
    def class_ap_counted(self) -> dict[str, float]:
        """cAP over all images: where the class is absent 1 if it is not predicted either, else 0."""
        return self._class_ap(count_absent=True)

    def _class_ap(self, count_absent: bool) -> dict[str, float]:
        rows = [class_aps(pairs, len(self.classes), count_absent=count_absent) for pairs in self.pairs.values()]
        columns = np.reshape(rows, (-1, len(self.classes))).T
        return {name: mean_of_defined(column) for name, column in zip(self.classes, columns, strict=True)}

    @cached_property
    def doubles(self) -> tuple[int, int]:
        """How many found riders are also given as a person (IoU above 0.5), and how many riders are found."""
        if not {"rider", "person"} <= set(self.classes):
            return 0, 0
        rider, person = self.classes.index("rider"), self.classes.index("person")
        double = found = 0
        for pairs in self.pairs.values():
            good = (pairs.scores >= _WORTH_DRAWING)[:, None] & (pairs.iou > 0.5)
            for column in np.flatnonzero(pairs.truth_classes == rider):
                as_rider = (good[:, column] & (pairs.classes == rider)).any()
                found += bool(as_rider)
                double += bool(as_rider and (good[:, column] & (pairs.classes == person)).any())
        return double, found


def judge(folder: Path, content: Mapping[str, Any]) -> Judged | None:
    """Read what a trial has predicted.

    Args:
        folder: of the trial.
        content: of the part it was judged on, as `read_part` gives it.

    Returns:
        None if there are no predictions.
    """
    ids = content["metadata"].get("thing_dataset_id_to_contiguous_id", {})
    try:
        predictions = read_predictions(folder / PREDICTIONS, ids)
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError):
        return None
    classes = tuple(content["metadata"]["thing_classes"])
    pairs = {r["image_id"]: _pairs(r, predictions.get(r["image_id"], [])) for r in content["records"]}
    return Judged(classes, pairs, predictions)


def _pairs(record: Mapping[str, Any], found: list[Instance]) -> ImagePairs:
    truth = instances_of_record(dict(record))
    crowds = [{**a, "iscrowd": 0} for a in record["annotations"] if a.get("iscrowd")]
    regions = instances_of_record({**record, "annotations": crowds})
    return pairs_of(
        np.array([instance.score for instance in found]),
        np.array([instance.label for instance in found], int),
        [instance.rle for instance in found],
        np.array([instance.label for instance in truth], int),
        [instance.rle for instance in truth],
        np.array([instance.label for instance in regions], int),
        [instance.rle for instance in regions],
    )
