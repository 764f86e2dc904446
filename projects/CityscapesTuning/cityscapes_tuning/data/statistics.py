"""What the parts of the data hold, beside what the slides say of theirs (section 1)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon


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
