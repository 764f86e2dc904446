"""What mini-masks cost at best: the IoU of every mask with what is left of it, and the AP that this allows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gan_plugin.evaluation.per_image_ap import THRESHOLDS
from gan_plugin.visualization.panels import instances_of_record

from .classes import size_of
from .mini_mask import SIDE, round_trip


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
            for name in ("all", size_of(float(mask.sum())), classes[instance.label]):
                groups[name].append(iou)
    return {name: _ceiling(values) for name, values in groups.items() if values}


def _ceiling(values: list[float]) -> Ceiling:
    shares = tuple(float(np.mean([value > threshold for value in values])) for threshold in THRESHOLDS)
    return Ceiling(len(values), float(np.mean(values)), shares)
