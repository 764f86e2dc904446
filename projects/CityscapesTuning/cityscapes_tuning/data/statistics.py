"""What the parts of the data hold, beside what the slides say of theirs (section 1); what mini-masks cost."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon

from gan_plugin.evaluation.per_image_ap import THRESHOLDS
from gan_plugin.visualization.panels import instances_of_record

from .mapper import SIDE, round_trip

# the area of COCO's small and medium objects
_SMALL, _MEDIUM = 32**2, 96**2


@dataclass(frozen=True)
class PartStatistics:
    """Counts over the images of a part; groups are not instances.

    Attributes:
        images: how many.
        instances: of all images.
        most: instances in one image.
        empty: images without an instance.
        by_class: class name -> instances, all classes.
    """

    images: int
    instances: int
    most: int
    empty: int
    by_class: dict[str, int]


def part_statistics(records: Iterable[Mapping[str, Any]], classes: Iterable[str]) -> PartStatistics:
    """Count the instances in records of Detectron2's format."""
    names = list(classes)
    counts = [[a["category_id"] for a in r["annotations"] if not a.get("iscrowd")] for r in records]
    tally = Counter(label for labels in counts for label in labels)
    return PartStatistics(
        images=len(counts),
        instances=sum(map(len, counts)),
        most=max(map(len, counts), default=0),
        empty=sum(not labels for labels in counts),
        by_class={name: tally[number] for number, name in enumerate(names)},
    )


def distance(first: PartStatistics, second: PartStatistics) -> float:
    """Jensen-Shannon distance (base 2, in [0, 1]) between the class distributions of two parts.

    0 means the same shares of classes: a number for the slides' claim that the classes are balanced across the sets.
    NaN if a part has no instance.
    """
    a, b = (np.array(list(part.by_class.values()), float) for part in (first, second))
    return float(jensenshannon(a, b, base=2)) if a.sum() and b.sum() else float("nan")


@dataclass(frozen=True)
class Ceiling:
    """Of a group of instances.

    Attributes:
        instances: how many.
        iou: mean IoU of original and reconstructed mask, in [0, 1].
        ap: share of the instances whose IoU is above the threshold, at 0.50, 0.55, ..., 0.95. It is the AP of a
            detector that finds every instance, gives exactly the reconstructed masks, and ranks the good ones first.
    """

    instances: int
    iou: float
    ap: tuple[float, ...]

    @property
    def rap(self) -> float:
        """The mean over the thresholds."""
        return float(np.mean(self.ap))


def ceilings(records: Iterable[Mapping[str, Any]], classes: Sequence[str], side: int = SIDE) -> dict[str, Ceiling]:
    """The ceiling of all instances ("all"), of each size ("small", "medium", "large") and of each class.

    Args:
        records: in Detectron2's format; masks at the images' full size.
        classes: names, by the records' category_id.
        side: of the mini-masks in pixels.
    """
    groups: dict[str, list[float]] = {name: [] for name in ("all", "small", "medium", "large", *classes)}
    for record in records:
        for instance in instances_of_record(dict(record)):
            mask = instance.mask
            if not mask.any():
                continue
            left = round_trip(mask, side)
            iou = float((mask & left).sum() / (mask | left).sum())
            for name in ("all", _size(float(mask.sum())), classes[instance.label]):
                groups[name].append(iou)
    return {name: _ceiling(values) for name, values in groups.items() if values}


def _ceiling(values: list[float]) -> Ceiling:
    shares = tuple(float(np.mean([value > threshold for value in values])) for threshold in THRESHOLDS)
    return Ceiling(len(values), float(np.mean(values)), shares)


def _size(area: float) -> str:
    return "small" if area < _SMALL else "medium" if area < _MEDIUM else "large"
