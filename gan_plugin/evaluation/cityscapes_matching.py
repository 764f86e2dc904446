"""The rules of the Cityscapes instance AP, as pure functions on arrays.

The rules are those of cityscapesScripts' evalInstanceLevelSemanticLabeling (version 2.3.0) without distances:

- A predicted mask is compared with the truth of its class only: instances, and groups (ids below 1000, such as a row
  of persons that nobody told apart). Masks without a pixel do not exist.
- It hits a piece of truth if their IoU is above the threshold. All thresholds are at least 0.5 and pieces of truth are
  disjoint, so a mask hits one at most.
- Instances of at least 100 pixels are targets. Of the masks that hit the same target the one of highest score is true,
  the others are false. Masks that hit a group or a smaller instance do not count.
- A mask that hits nothing is false, unless more than a threshold's share of it lies on ground to ignore: void pixels
  (the ids, not the instances, of labels that are not evaluated), groups and smaller instances of its class. A group
  below 100 pixels is both and counts twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gan_plugin.evaluation.instance_ids import EVALUATED, FIRST_INSTANCE_ID, FIRST_PIECE, ON_VOID, InstanceIds

THRESHOLDS = np.arange(0.5, 1.0, 0.05)
MIN_PIXELS = 100


@dataclass(frozen=True)
class Comparison:
    """What the scores need to know of N predicted masks and T targets, of one image or several.

    Attributes:
        classes: (N,) label ids; those outside `EVALUATED` are never scored.
        scores: (N,) confidences.
        iou: (N,) in [0, 1], with the piece of truth that each overlaps best; 0 if there is none.
        target: (N,) index of that piece among the targets, -1 if it is a group, a small instance or absent.
        ignored: (N,) share of the mask on ground to ignore; above 1 where a small group counts twice.
        targets: (T,) label ids.
    """

    classes: np.ndarray
    scores: np.ndarray
    iou: np.ndarray
    target: np.ndarray
    ignored: np.ndarray
    targets: np.ndarray


def compare(
    ids: np.ndarray, masks: Iterable[np.ndarray | dict], classes: Sequence[int], scores: Sequence[float]
) -> Comparison:
    """Compare the predictions for one image with its truth.

    Args:
        ids: (H, W) integers as in gtFine's instanceIds.
        masks: N bool arrays (H, W) or COCO RLEs, which may overlap.
        classes: N label ids.
        scores: N confidences, in any range.

    Raises:
        UserError: ids that are not those of Cityscapes; a mask of another size.
    """
    truth = InstanceIds(ids)
    counts = np.array([truth.count(mask) for mask in masks], np.int64).reshape(-1, FIRST_PIECE + len(truth.pieces))
    areas = counts.sum(axis=1)
    real = areas > 0
    counts, areas = counts[real], areas[real]
    own_class = np.asarray(classes, np.int64).reshape(-1)[real]
    shared = counts[:, FIRST_PIECE:] * (own_class[:, None] == truth.classes)
    groups, small = truth.pieces < FIRST_INSTANCE_ID, truth.sizes < MIN_PIXELS
    aims = ~groups & ~small
    # one column more, a piece that nothing overlaps, so that there is always a best one
    iou = np.pad(shared / (areas[:, None] + truth.sizes - shared), ((0, 0), (0, 1)))
    best = iou.argmax(axis=1)
    numbers = np.append(np.where(aims, np.cumsum(aims) - 1, -1), -1)
    to_ignore = counts[:, ON_VOID] + shared[:, groups].sum(axis=1) + shared[:, small].sum(axis=1)
    return Comparison(
        classes=own_class,
        scores=np.asarray(scores, np.float64).reshape(-1)[real],
        iou=iou[np.arange(len(best)), best],
        target=numbers[best],
        ignored=to_ignore / areas,
        targets=truth.classes[aims],
    )


def concatenate(comparisons: Sequence[Comparison]) -> Comparison:
    """The comparison of all images of `comparisons`, of which there is at least one, together."""
    starts = np.cumsum([0] + [len(part.targets) for part in comparisons])
    shifted = [
        np.where(part.target < 0, -1, part.target + start) for part, start in zip(comparisons, starts[:-1], strict=True)
    ]
    whole = {
        name: np.concatenate([getattr(part, name) for part in comparisons])
        for name in ("classes", "scores", "iou", "ignored", "targets")
    }
    return Comparison(target=np.concatenate(shifted), **whole)


def match(
    scores: np.ndarray, iou: np.ndarray, target: np.ndarray, ignored: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the true and of the false predictions among N of one class; the others do not count.

    Args:
        scores, iou, target, ignored: (N,) as in `Comparison`.
        threshold: in [0.5, 1), of the IoU and of the ignored share.

    Returns:
        Two arrays, (number of true,) and (number of false,). Targets that the first has no entry for are missed.
    """
    hits = iou > threshold
    on_target = np.flatnonzero(hits & (target >= 0))
    by_target = on_target[np.lexsort((-scores[on_target], target[on_target]))]
    first = np.diff(target[by_target], prepend=-1) > 0
    stray = ~hits & (ignored <= threshold)
    return scores[by_target[first]], np.concatenate([scores[by_target[~first]], scores[stray]])


def average_precision(true: np.ndarray, false: np.ndarray, targets: int) -> float:
    """The area below the precision-recall curve, in [0, 1]; NaN without targets.

    The curve has a point for every distinct score, and one at recall 0 and precision 1. A point is as wide as half
    the distance of its neighbours; beyond the last recall the curve stays where it is.

    Args:
        true, false: scores of true and of false predictions.
        targets: number of instances to find, at least `len(true)`.
    """
    if not targets:
        return float("nan")
    cuts = np.unique(np.concatenate([true, false]))
    rights = len(true) - np.searchsorted(np.sort(true), cuts)
    wrongs = len(false) - np.searchsorted(np.sort(false), cuts)
    precision = np.append(rights / (rights + wrongs), 1.0)
    recall = np.append(rights / targets, 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (padded[:-2] - padded[2:]) / 2)


def precisions(comparison: Comparison) -> np.ndarray:
    """(classes in the order of EVALUATED, THRESHOLDS): the AP of each, in [0, 1]; a row of NaN without targets."""
    table = np.empty((len(EVALUATED), len(THRESHOLDS)))
    for row, label in zip(table, EVALUATED, strict=True):
        own = comparison.classes == label
        scores, iou, target, ignored = (getattr(comparison, n)[own] for n in ("scores", "iou", "target", "ignored"))
        targets = int((comparison.targets == label).sum())
        found = (match(scores, iou, target, ignored, threshold) for threshold in THRESHOLDS.tolist())
        row[:] = [average_precision(true, false, targets) for true, false in found]
    return table
