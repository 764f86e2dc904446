"""The official Cityscapes instance AP by class, from masks in memory: its rules on arrays, and its evaluators.

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

import copy
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import CityscapesInstanceEvaluator, DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from gan_plugin.errors import UserError
from gan_plugin.evaluation.instance_ids import (
    EVALUATED,
    FIRST_INSTANCE_ID,
    FIRST_PIECE,
    ON_VOID,
    InstanceIds,
    label_id,
    read_instance_ids,
)

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


class CityscapesInstanceMetrics(CityscapesInstanceEvaluator):
    """Cityscapes instance AP computed by cityscapesScripts, reported by class and without needing the whole split.

    It differs from Detectron2's evaluator in three ways. The truth is that of the images that were processed, not of
    every image under `gt_dir`, so a subset can be evaluated. The result has one entry for each class. It is filed
    under "cityscapes" rather than "segm", a name that COCOEvaluator uses too.

    The data set needs the metadata `thing_classes` (Cityscapes' names) and `gt_dir` (gtFine/<split>).
    """

    def reset(self) -> None:
        super().reset()
        self._sizes: dict[str, tuple[int, int] | None] = {}
        self._unknown: UserError | None = None

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        found = [output.get("instances") for output in outputs]
        try:
            for index in {i for instances in found if instances is not None for i in instances.pred_classes.tolist()}:
                label_id(self._metadata.thing_classes, index)
        except UserError as error:
            # kept until `evaluate`: raised here, it would leave the other processes waiting for this one
            self._unknown = error
            return
        super().process(inputs, outputs)
        for record, instances in zip(inputs, found, strict=True):
            self._sizes[record["file_name"]] = None if instances is None else instances.image_size

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Score everything processed since `reset`; a collective call, so every rank has to make it.

        Returns:
            {"cityscapes": {"AP", "AP50", "AP-<class>", "AP50-<class>"}} in percent on the main process, None on the
            others. A class without an instance to find in these images has no AP and is left out, as is the average
            when that holds for all classes: there is no NaN to write to JSON.

        Raises:
            UserError: an instance-id image is missing, broken, or of the wrong kind or size, or the model predicts a
                class that is unknown; on the main process only.
        """
        # gathering also waits until every process has written its predictions
        gathered = comm.gather((self._sizes, self._unknown))
        if not comm.is_main_process():
            return None
        try:
            for _, unknown in gathered:
                if unknown is not None:
                    raise unknown
            sizes = {name: size for part, _ in gathered for name, size in part.items()}
            truth = {name: truth_of(name, self._metadata.gt_dir) for name in sorted(sizes)}
            for name, path in truth.items():
                read_instance_ids(path, sizes[name])
            averages = self._official_averages(truth)
        finally:
            self._working_dir.cleanup()
        scores = {"AP": averages["allAp"], "AP50": averages["allAp50%"]}
        for name, score in averages["classes"].items():
            scores |= {f"AP-{name}": score["ap"], f"AP50-{name}": score["ap50%"]}
        return OrderedDict(cityscapes=in_percent(scores, self._logger))

    def _official_averages(self, truth: Mapping[str, str]) -> dict[str, Any]:
        import cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling as official

        predictions = [os.path.join(self._temp_dir, _stem(image_file) + "_pred.txt") for image_file in truth]
        # the script keeps its settings in a module global; a copy leaves other evaluators in this process alone
        settings = copy.copy(official.args)
        settings.predictionPath = os.path.abspath(self._temp_dir)
        settings.gtInstancesFile = os.path.join(self._temp_dir, "gtInstances.json")
        settings.JSONOutput = False
        settings.quiet = True
        return official.evaluateImgLists(predictions, list(truth.values()), settings)["averages"]


def truth_of(image_file: str, gt_dir: str) -> str:
    """The path of the instance-id image of <city>/<name>_leftImg8bit.<suffix> under `gt_dir`, gtFine/<split>.

    Raises:
        UserError: there is no such file.
    """
    city = os.path.basename(os.path.dirname(image_file))
    name = _stem(image_file).removesuffix("_leftImg8bit") + "_gtFine_instanceIds.png"
    path = os.path.join(PathManager.get_local_path(gt_dir), city, name)
    if not os.path.isfile(path):
        raise UserError(f"{path} is missing, so {image_file} cannot be evaluated; unpack gtFine again.")
    return path


def in_percent(scores: Mapping[str, float], logger: logging.Logger) -> dict[str, float]:
    """The `scores`, in [0, 1] or NaN, in percent and without the NaN; logged as a table."""
    known = {name: 100 * float(score) for name, score in scores.items() if not math.isnan(score)}
    if known:
        logger.info("Cityscapes instance AP:\n" + create_small_table(known))
    else:
        logger.warning("These images hold no instance to find, so there is no Cityscapes AP.")
    return known


def _stem(image_file: str) -> str:
    return os.path.splitext(os.path.basename(image_file))[0]


class FastCityscapesInstanceEvaluator(DatasetEvaluator):
    """`CityscapesInstanceMetrics` without its files: same inputs, same result, to rounding (1e-9, tested).

    Every process compares its images with their truth as they come and keeps a few numbers of each mask; these are
    gathered in the end. Several machines may take part. It differs in one case: where all predictions of a class that
    has instances are to be ignored, the official script fails with an IndexError, and here the AP of the class is 0.

    The data set needs the metadata `thing_classes` (Cityscapes' names) and `gt_dir` (gtFine/<split>).
    """

    def __init__(self, dataset_name: str) -> None:
        self._metadata = MetadataCatalog.get(dataset_name)
        self._logger = logging.getLogger(__name__)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._images: dict[str, Comparison | UserError] = {}

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Compare the predictions of a batch with the truth; an image seen before is replaced.

        Args:
            inputs: records with "file_name".
            outputs: with "instances" on any device: `scores` (N,), `pred_classes` (N,) indices into the data set's
                `thing_classes`, and `pred_masks`: a tensor (N, H, W), or N COCO RLEs of (H, W), compressed or not.
                Without "instances" nothing was found. As on the official way, whole numbers but 0 are foreground.
        """
        for record, output in zip(inputs, outputs, strict=True):
            image_file = record["file_name"]
            try:
                self._images[image_file] = self._compare(image_file, output)
            except UserError as error:
                # kept until `evaluate`: raised here, it would leave the other processes waiting for this one
                self._images[image_file] = error

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Score everything processed since `reset`; a collective call, so every rank has to make it.

        Returns:
            As `CityscapesInstanceMetrics.evaluate`: {"cityscapes": {"AP", "AP50", "AP-<class>", "AP50-<class>"}} in
            percent on the main process, None on the others; what has no AP is left out.

        Raises:
            UserError: an instance-id image is missing, cannot be decoded, or does not fit the predictions; on the main
                process only.
        """
        gathered = comm.gather(self._images)
        if not comm.is_main_process():
            return None
        images = {name: found for part in gathered for name, found in part.items()}
        for _, found in sorted(images.items(), key=lambda item: item[0]):
            if isinstance(found, UserError):
                raise found
        comparisons = [found for found in images.values() if isinstance(found, Comparison)]
        scores = _named(precisions(concatenate(comparisons))) if comparisons else {}
        return OrderedDict(cityscapes=in_percent(scores, self._logger))

    def _compare(self, image_file: str, output: dict[str, Any]) -> Comparison:
        path = truth_of(image_file, self._metadata.gt_dir)
        instances = output.get("instances")
        ids = read_instance_ids(path, instances.image_size if instances is not None else None)
        labels, scores, masks = self._columns(instances) if instances is not None else ([], [], [])
        try:
            return compare(ids, _as_masks(masks), labels, scores)
        except UserError as error:
            raise UserError(f"{path} is not the truth of {image_file}: {error}; unpack gtFine again.") from error

    def _columns(self, instances: Any) -> tuple[list[int], list[float], Any]:
        """Label ids, scores, and masks in the computer's memory."""
        labels = [label_id(self._metadata.thing_classes, index) for index in instances.pred_classes.tolist()]
        masks = instances.pred_masks
        return labels, instances.scores.tolist(), masks.cpu() if isinstance(masks, torch.Tensor) else masks


def _named(table: np.ndarray) -> dict[str, float]:
    """The entries of the result from (classes, thresholds), in [0, 1] or NaN."""
    measured = table[~np.isnan(table[:, 0])]
    scores = {"AP": measured.mean(), "AP50": measured[:, 0].mean()} if len(measured) else {}
    for name, row in zip(EVALUATED.values(), table, strict=True):
        scores |= {f"AP-{name}": row.mean(), f"AP50-{name}": row[0]}
    return scores


def _as_masks(masks: Sequence[Any]) -> Iterator[np.ndarray | dict[str, Any]]:
    # one at a time: a hundred masks of 1024x2048 are 200 MB
    for mask in masks:
        pixels = mask if isinstance(mask, dict) else np.asarray(mask)
        yield pixels if isinstance(pixels, dict) or pixels.dtype == bool else pixels.astype(np.uint8) != 0
