"""How well a mask head draws when it is told where the objects are: IoU of masks and of outlines in truth boxes.

AP mixes the search for objects with their outlines; this measures outlines alone, and spreads less over seeds. How well
two outlines agree is Boundary IoU (Cheng et al. 2021, arXiv:2103.16562).
"""

import inspect
import json
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from pycocotools.coco import COCO
from torch import nn

from gan_plugin.errors import UserError
from gan_plugin.evaluation.per_image_ap import contiguous_class

# the width of the band as a share of the image's diagonal (section 5.1)
DILATION_RATIO = 0.02
# in the folder of the evaluation's files: the scores of every object
SCORES_FILE = "truth_boxes.json"
TASK = "truth_boxes"
MEASURES = ("mask_iou", "boundary_iou")
_KEY = "TEST.TRUTH_BOXES"
_logger = logging.getLogger(__name__)
# the model that is being evaluated
_evaluated: ContextVar[nn.Module | None] = ContextVar("evaluated", default=None)
# (class, mask IoU, boundary IoU) of each object of an image
_Scores = list[tuple[int, float, float]]


def boundary_iou(first: np.ndarray, second: np.ndarray, ratio: float = DILATION_RATIO) -> float:
    """IoU in [0, 1] of the bands inside two outlines (section 4); 0 for two empty masks.

    Boundary AP takes the smaller of this and the mask IoU, since it is 1 for masks that differ in their core alone.

    Args:
        first, second: (H, W) bool masks on the image's own grid.
        ratio: as for `boundary_band`.
    """
    one, other = boundary_band(first, ratio), boundary_band(second, ratio)
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def boundary_band(mask: np.ndarray, ratio: float = DILATION_RATIO) -> np.ndarray:
    """(H, W) bool, the pixels of `mask` that are close to its outline, which runs along the image's border as well.

    Args:
        mask: (H, W) bool.
        ratio: so many diagonals of the image, rounded and at least one pixel, is close.
    """
    pixels = max(1, round(ratio * math.hypot(*mask.shape)))
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    # nothing outside of the object's box can matter, and images are much larger than that
    own = mask[y : y + height, x : x + width].astype(np.uint8)
    core = cv2.erode(np.pad(own, 1), np.ones((3, 3), np.uint8), iterations=pixels)[1:-1, 1:-1]
    band = np.zeros(mask.shape, bool)
    band[y : y + height, x : x + width] = own > core
    return band


class TruthBoxMasks(DatasetEvaluator):
    """Mask IoU and Boundary IoU of the masks that a model draws in the boxes, and of the classes, of the truth.

    Objects without a mask and crowd regions are left out; an object that gets no mask counts 0. The model has to be
    known, see `evaluating`: its outputs alone do not tell.
    """

    def __init__(self, dataset_name: str, truth: COCO, output_folder: str | None = None) -> None:
        """
        Args:
            dataset_name: a registered data set with `thing_classes` in its metadata.
            truth: its annotations in COCO's format, such as COCOEvaluator makes of any data set.
            output_folder: where SCORES_FILE goes; None for nowhere.
        """
        self._metadata = MetadataCatalog.get(dataset_name)
        self._truth = truth
        self._folder = output_folder
        self._draw: Callable[..., list[dict[str, Any]]] | None = None
        self.reset()

    def reset(self) -> None:
        """Begin anew; with the model of `evaluating`, if it is within such a block, whose errors it has."""
        self._scores: dict[Any, _Scores] = {}
        model = _evaluated.get()
        if model is not None:
            self._draw = drawing_of(model)

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        if self._draw is None:
            raise UserError(
                f"{_KEY} needs to know the model, which AdversarialTrainer and tools/ tell it; in a loop of your own "
                "evaluate within gan_plugin.evaluation.truth_boxes.evaluating(model), or set it to False."
            )
        objects = [self._objects(record["image_id"]) for record in inputs]
        shown = [(record, of_image) for record, of_image in zip(inputs, objects, strict=True) if of_image]
        if not shown:
            return
        with torch.no_grad():
            drawn = self._draw(
                [record for record, _ in shown],
                [_told(record, of_image, self._class_of) for record, of_image in shown],
            )
        for (record, of_image), answer in zip(shown, drawn, strict=True):
            self._scores[record["image_id"]] = self._compare(of_image, answer["instances"])

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Average everything processed since `reset`; a collective call, so every rank has to make it.

        Returns:
            {"truth_boxes": scores} in percent on the main process, None on the others. "mask_iou" and "boundary_iou"
            are means over objects, with "_image" behind them means over the images of each image's mean, and with
            several classes "-<class>" behind them means over the objects of a class. What no object defines is left
            out.
        """
        gathered = comm.gather(self._scores)
        if not comm.is_main_process():
            return None
        by_image = {image_id: scores for part in gathered for image_id, scores in part.items()}
        self._save(by_image)
        if not by_image:
            _logger.warning("No object with a mask was evaluated, so there is no IoU in truth boxes.")
            return OrderedDict({TASK: {}})
        rows = np.array([row for scores in by_image.values() for row in scores])
        means = np.array([np.mean(scores, axis=0) for scores in by_image.values()])
        results = {name: float(rows[:, at].mean()) for at, name in enumerate(MEASURES, start=1)}
        results |= {f"{name}_image": float(means[:, at].mean()) for at, name in enumerate(MEASURES, start=1)}
        classes: list[str] = self._metadata.thing_classes
        for number, of_class in enumerate(classes if len(classes) > 1 else ()):
            own = rows[rows[:, 0] == number]
            if len(own):
                results |= {f"{name}-{of_class}": float(own[:, at].mean()) for at, name in enumerate(MEASURES, start=1)}
        results = {name: 100 * value for name, value in results.items()}
        _logger.info("Masks drawn in truth boxes:\n" + create_small_table(results))
        return OrderedDict({TASK: results})

    def _save(self, by_image: dict[Any, _Scores]) -> None:
        if not self._folder:
            return
        PathManager.mkdirs(self._folder)
        rows = [
            {"image_id": image_id, "class": number, **dict(zip(MEASURES, values, strict=True))}
            for image_id, scores in by_image.items()
            for number, *values in scores
        ]
        with PathManager.open(os.path.join(self._folder, SCORES_FILE), "w") as file:
            file.write(json.dumps(rows))

    def _objects(self, image_id: Any) -> list[dict[str, Any]]:
        """The annotations of one image that have a mask to compare with."""
        annotations = self._truth.imgToAnns.get(image_id, [])
        masked = [one for one in annotations if not one.get("iscrowd", 0) and one.get("segmentation")]
        return [one for one in masked if self._truth.annToMask(one).any()]

    def _class_of(self, annotation: dict[str, Any]) -> int:
        return contiguous_class(self._metadata, annotation)

    def _compare(self, objects: list[dict[str, Any]], answer: Instances) -> _Scores:
        if not answer.has("pred_masks"):
            raise UserError(f"{_KEY} measures masks, and the model draws none in given boxes; set it to False.")
        answer = answer.to("cpu")
        # a box that is empty on the image's grid has been dropped on the way
        places = {number: place for place, number in enumerate(answer.truth.tolist())}
        scores: _Scores = []
        for number, annotation in enumerate(objects):
            ious = (0.0, 0.0)
            if number in places:
                truth = self._truth.annToMask(annotation) > 0
                ious = _ious(answer.pred_masks[places[number]].numpy() > 0, truth)
            scores.append((self._class_of(annotation), *ious))
        return scores


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The block in which `model`, perhaps in DistributedDataParallel, is evaluated: what it draws in the boxes is what
    each `TruthBoxMasks` measures that begins in it. Errors as in `drawing_of`, once there is one."""
    before = _evaluated.set(model)
    try:
        yield
    finally:
        _evaluated.reset(before)


def can_be_told(kind: type) -> bool:
    """Whether the models of a class have a mask head that takes boxes which others have found."""
    return issubclass(kind, GeneralizedRCNN)


def drawing_of(model: nn.Module) -> Callable[..., list[dict[str, Any]]]:
    """What draws masks in given boxes: `inference(inputs, detected_instances)` of the model.

    Raises:
        UserError: its masks are not drawn in boxes, as those of query-based models.
    """
    inner: Any = getattr(model, "module", model)
    if not can_be_told(type(inner)) or not hasattr(inner.roi_heads, "forward_with_given_boxes"):
        raise UserError(
            f"{_KEY} is for models whose mask head draws in boxes that it can be told, and {type(inner).__name__} has "
            "none; set it to False."
        )
    # a subclass, such as PanopticFPN, may have an inference that cannot be told boxes
    known = "detected_instances" in inspect.signature(inner.inference).parameters
    return inner.inference if known else partial(GeneralizedRCNN.inference, inner)


def _told(
    record: dict[str, Any], objects: list[dict[str, Any]], class_of: Callable[[dict[str, Any]], int]
) -> Instances:
    """The boxes and classes of the truth as if a model had found them in its resized input."""
    height, width = record["image"].shape[-2:]
    scale = [width / record.get("width", width), height / record.get("height", height)] * 2
    boxes = np.array([BoxMode.convert(one["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for one in objects], float)
    told = Instances((height, width))
    told.pred_boxes = Boxes(torch.as_tensor(boxes * scale, dtype=torch.float32))
    told.pred_classes = torch.tensor([class_of(one) for one in objects])
    told.scores = torch.ones(len(objects))
    told.truth = torch.arange(len(objects))
    return told


def _ious(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """IoU of two (H, W) bool masks, the second not empty, and of their outlines."""
    return float((first & second).sum() / (first | second).sum()), boundary_iou(first, second)
