"""The Cityscapes instance AP from masks in memory: the official numbers without a file for every instance."""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from gan_plugin.errors import UserError
from gan_plugin.evaluation.cityscapes import in_percent, truth_of
from gan_plugin.evaluation.cityscapes_matching import Comparison, compare, concatenate, precisions
from gan_plugin.evaluation.instance_ids import EVALUATED, label_id, read_instance_ids


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
