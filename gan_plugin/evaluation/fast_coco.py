"""COCO AP and AR through faster-coco-eval: Detectron2's numbers sooner, all twelve of them, and Boundary AP."""

import itertools
import json
import logging
import math
import os
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from detectron2.evaluation import COCOEvaluator
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from faster_coco_eval import COCO, COCOeval_faster

from gan_plugin.errors import UserError

TASKS = ("bbox", "segm", "boundary")
AREAS = ("s", "m", "l")
_logger = logging.getLogger(__name__)


class FastCOCOEvaluator(COCOEvaluator):
    """COCOEvaluator with faster-coco-eval (https://github.com/MiXaiLL76/faster_coco_eval) in place of pycocotools.

    Detectron2's own fast evaluation is C++ that its pure Python copy lacks. The scores are pycocotools' to rounding.
    "boundary" is Boundary AP (Cheng et al. 2021, arXiv:2103.16562): the smaller of mask IoU and the IoU of the bands
    of 2 % of the image's diagonal inside the outlines takes the place of mask IoU.

    Args:
        dataset_name: a registered data set; its image ids may be of any type that sorts, Cityscapes' are strings.
        tasks: some of "bbox", "segm" and "boundary"; the last two need predicted masks.
        output_dir: for the truth, if it has to be converted to COCO's format, and for the predictions; None where
            the data set has a `json_file` and nothing is to be written.
        options: COCOEvaluator's `distributed`, `max_dets_per_image` and `allow_cached_coco`.

    Raises:
        UserError: an unknown task; in `evaluate`, predictions of an image or a class that the data set does not hold.
    """

    def __init__(
        self, dataset_name: str, tasks: Sequence[str] = ("bbox", "segm"), output_dir: str | None = None, **options: Any
    ) -> None:
        if unknown := sorted(set(tasks) - set(TASKS)):
            raise UserError(f"There is no COCO task {unknown[0]!r} here; choose from {', '.join(TASKS)}.")
        super().__init__(dataset_name, tasks=tuple(tasks), output_dir=output_dir, use_fast_impl=False, **options)
        self._name = dataset_name
        # the library wants whole numbers; in the ids' order, because the images' order decides between equal scores
        self._numbers = {image_id: i for i, image_id in enumerate(sorted(self._coco_api.getImgIds()), start=1)}

    def _eval_predictions(
        self, predictions: Iterable[dict[str, Any]], img_ids: Iterable[Hashable] | None = None
    ) -> None:
        results = self._results_of(predictions)
        if self._output_dir:
            with PathManager.open(os.path.join(self._output_dir, "coco_instances_results.json"), "w") as file:
                file.write(json.dumps(results))
        if not self._do_evaluation:
            _logger.info("Annotations are not available for evaluation.")
            return
        images = None if img_ids is None else [self._number(image_id) for image_id in img_ids]
        for task in sorted(self._tasks):
            self._results[task] = self._scores(self._evaluated(results, task, images) if results else None)
            _logger.info(f"COCO {task}:\n" + create_small_table(self._results[task]))

    def _results_of(self, predictions: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The predictions in COCO's result format, with the data set's own ids of classes and images."""
        results = [dict(result) for result in itertools.chain(*(record["instances"] for record in predictions))]
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if ids is not None:
            original = {contiguous: dataset_id for dataset_id, contiguous in ids.items()}
            for result in results:
                number = result["category_id"]
                if number not in original:
                    raise UserError(
                        f"The model predicts class {number}, but '{self._name}' has {len(original)} classes; "
                        f"set MODEL.ROI_HEADS.NUM_CLASSES to {len(original)}."
                    )
                result["category_id"] = original[number]
        return results

    def _number(self, image_id: Hashable) -> int:
        if image_id not in self._numbers:
            raise UserError(
                f"The data set '{self._name}' holds no image {image_id!r}; evaluate predictions of its own images."
            )
        return self._numbers[image_id]

    def _evaluated(self, results: list[dict[str, Any]], task: str, images: list[int] | None) -> COCOeval_faster:
        # The library writes into what it is given, and the next task and the caller want theirs as it was.
        truth = dict(self._coco_api.dataset)
        truth["images"] = [{**image, "id": self._numbers[image["id"]]} for image in truth["images"]]
        truth["annotations"] = [{**a, "image_id": self._numbers[a["image_id"]]} for a in truth["annotations"]]
        results = [{**result, "image_id": self._number(result["image_id"])} for result in results]
        if task != "bbox":
            # with a box there its area, not the mask's, would decide between small, medium and large
            for result in results:
                del result["bbox"]
        coco = COCO(truth)
        evaluation = COCOeval_faster(coco, coco.loadRes(results), task, print_function=_logger.debug)
        evaluation.params.maxDets = list(self._max_dets_per_image)
        if images is not None:
            evaluation.params.imgIds = images
        evaluation.run()
        return evaluation

    def _scores(self, evaluation: COCOeval_faster | None) -> dict[str, float]:
        """AP and AR in percent, NaN where there is no truth to find, and everywhere without any prediction.

        Returns:
            {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}, 100 being the
            `max_dets_per_image`, and with several classes "AP-<class>".
        """
        names = ["AP", "AP50", "AP75", *(f"AP{area}" for area in AREAS)]
        names += [f"AR{limit}" for limit in self._max_dets_per_image] + [f"AR{area}" for area in AREAS]
        if evaluation is None:
            _logger.warning("The model predicted nothing, so there is no COCO AP.")
            return dict.fromkeys(names, math.nan)
        scores = {name: _percent(np.array([value])) for name, value in zip(names, evaluation.stats, strict=True)}
        classes = self._metadata.get("thing_classes") or []
        if len(classes) > 1:
            # (thresholds, recalls, classes, area ranges, limits); all sizes come first and the usual limit last
            precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
            scores |= {f"AP-{name}": _percent(precision[:, :, i]) for i, name in enumerate(classes)}
        return scores


def _percent(values: np.ndarray) -> float:
    """100 times the mean of those that are defined; COCO marks the others with -1."""
    defined = values[values > -1]
    return float(100 * defined.mean()) if defined.size else math.nan
