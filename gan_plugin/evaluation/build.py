"""Choose the evaluators of a data set from its metadata and the config."""

import logging
import math
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError
from gan_plugin.evaluation.cityscapes import CityscapesInstanceMetrics, FastCityscapesInstanceEvaluator
from gan_plugin.evaluation.per_image_ap import PerImageAP
from gan_plugin.evaluation.truth_boxes import MEASURES, TASK, TruthBoxMasks

EVALUATOR_TYPES = ("cityscapes_instance", "coco")
# so many detections of an image COCO's AP and AR look at, the surest first
COCO_DETECTIONS = 100
_logger = logging.getLogger(__name__)


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """`official_evaluator` for a config.

    Args:
        cfg: MODEL.MASK_ON decides whether masks are measured, OUTPUT_DIR where files go, TEST.DETECTIONS_PER_IMAGE how
            many of an image COCO's metrics look at (see `evaluated_detections`); TEST.CITYSCAPES_EVALUATOR,
            TEST.COCO_EVALUATOR, TEST.BOUNDARY_AP, TEST.PER_IMAGE_AP and TEST.TRUTH_BOXES as `add_gan_config` explains
            them.
        dataset_name: a registered data set.
        output_folder: OUTPUT_DIR/inference/<dataset_name> if None.

    Raises:
        UserError: as `official_evaluator`, or keys that contradict each other.
    """
    check_evaluation(cfg)
    return official_evaluator(
        dataset_name,
        output_folder or os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name),
        cfg.MODEL.MASK_ON,
        cityscapes=check_choice("TEST.CITYSCAPES_EVALUATOR", cfg.TEST.CITYSCAPES_EVALUATOR),
        coco=cfg.TEST.COCO_EVALUATOR,
        boundary=cfg.TEST.BOUNDARY_AP,
        per_image=cfg.TEST.PER_IMAGE_AP,
        detections=evaluated_detections(cfg.TEST.DETECTIONS_PER_IMAGE),
        truth_boxes=cfg.TEST.TRUTH_BOXES,
    )


def evaluated_detections(of_image: int) -> int:
    """How many detections of an image COCO's metrics look at, if the model gives at most `of_image` (-1: all it has).

    COCO's own 100, or what is asked of the model where that is more: otherwise the AP of a data set with hundreds of
    objects in an image would be that of a part of them.
    """
    return max(COCO_DETECTIONS, of_image)


def official_evaluator(
    dataset_name: str,
    output_folder: str,
    masks: bool = True,
    *,
    cityscapes: str = "official",
    coco: str = "pycocotools",
    boundary: bool = False,
    per_image: bool = False,
    detections: int = COCO_DETECTIONS,
    truth_boxes: bool = False,
) -> DatasetEvaluator:
    """The evaluator of `dataset_name`, chosen by the `evaluator_type` in its metadata.

    Args:
        dataset_name: a registered data set.
        output_folder: for the predictions and the truth in COCO format.
        masks: whether masks are measured beside the boxes.
        cityscapes: "official" or "fast", two ways to the same Cityscapes AP.
        coco: "pycocotools" or "faster", two ways to the same COCO metrics.
        boundary: whether "faster" measures the Boundary AP as well.
        per_image: whether AP, cAP and rAP per image are measured as well.
        detections: how many of an image COCO's metrics look at, the surest first; more than COCO's own 100 is logged.
        truth_boxes: whether masks drawn in truth boxes are measured as well; the evaluator then has to be run
            within `truth_boxes.evaluating(model)`, as the trainers and tools do.

    Returns:
        "coco": COCOEvaluator ("bbox" and, with masks, "segm"). "cityscapes_instance": the same plus, with masks, the
        Cityscapes AP under "cityscapes". Both with "boundary", "per_image" and "truth_boxes" where they are asked for.
        All scores are in percent.

    Raises:
        UserError: another evaluator_type, or none.
    """
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type not in EVALUATOR_TYPES:
        raise UserError(
            f"The data set '{dataset_name}' has evaluator_type {evaluator_type!r}, for which there is no evaluator; "
            f"set it in its metadata to one of: {', '.join(EVALUATOR_TYPES)}."
        )
    tasks = ("bbox", *(("segm",) if masks else ()), *(("boundary",) if boundary else ()))
    if detections > COCO_DETECTIONS:
        _logger.info(
            f"COCO's metrics of '{dataset_name}' look at up to {detections} detections of an image, not at COCO's own "
            f"{COCO_DETECTIONS}."
        )
    metrics = _coco_evaluator(dataset_name, output_folder, tasks, coco, detections)
    evaluators: list[DatasetEvaluator] = [metrics]
    if evaluator_type == "cityscapes_instance" and masks:
        kind = FastCityscapesInstanceEvaluator if cityscapes == "fast" else CityscapesInstanceMetrics
        evaluators.insert(0, kind(dataset_name))
    if per_image:
        evaluators.append(PerImageAP(dataset_name, metrics._coco_api))
    if truth_boxes:
        evaluators.append(TruthBoxMasks(dataset_name, metrics._coco_api, output_folder))
    return DatasetEvaluators(evaluators) if len(evaluators) > 1 else metrics


def check_evaluation(cfg: CfgNode) -> None:
    """Raise a UserError if the keys of TEST ask for what cannot be measured together."""
    evaluator = check_choice("TEST.COCO_EVALUATOR", cfg.TEST.COCO_EVALUATOR)
    for key in ("BOUNDARY_AP", "PER_IMAGE_AP", "TRUTH_BOXES"):
        if cfg.TEST[key] and not cfg.MODEL.MASK_ON:
            raise UserError(f"TEST.{key} measures masks, but MODEL.MASK_ON is False; set TEST.{key} to False.")
    if cfg.TEST.BOUNDARY_AP and evaluator != "faster":
        raise UserError('TEST.BOUNDARY_AP needs TEST.COCO_EVALUATOR "faster": pycocotools has no Boundary AP.')


def _coco_evaluator(dataset_name: str, folder: str, tasks: tuple[str, ...], way: str, detections: int) -> COCOEvaluator:
    metadata = MetadataCatalog.get(dataset_name)
    # An earlier COCOEvaluator leaves the file it converted the truth to in the metadata. The next one would use it
    # unseen, though it may be deleted by now or describe other images.
    if os.path.basename(metadata.get("json_file", "")) == f"{dataset_name}_coco_format.json":
        del metadata.json_file
    kind: type[COCOEvaluator] = COCOMetrics
    if way == "faster":
        # Here, so that the default still runs in an environment from before this evaluator.
        from gan_plugin.evaluation.fast_coco import FastCOCOEvaluator

        kind = FastCOCOEvaluator
    return kind(dataset_name, tasks, output_dir=folder, allow_cached_coco=False, max_dets_per_image=detections)


class COCOMetrics(COCOEvaluator):
    """Detectron2's COCOEvaluator with the AR that pycocotools computes as well, under FastCOCOEvaluator's names."""

    def _derive_coco_results(self, coco_eval: Any, iou_type: str, class_names: Any = None) -> dict[str, float]:
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        names = recall_names(self._max_dets_per_image)
        stats = [-1.0] * 12 if coco_eval is None else coco_eval.stats
        if iou_type == "keypoints" or len(stats) != 12:
            return results
        pairs = zip(names, stats[6:], strict=True)
        recalls = {name: 100 * float(value) if value >= 0 else math.nan for name, value in pairs}
        by_class = {name: value for name, value in results.items() if "-" in name}
        overall = {name: value for name, value in results.items() if name not in by_class}
        return {**overall, **recalls, **by_class}


def recall_names(limits: Sequence[int]) -> list[str]:
    """The names of COCO's six AR: with at most so many predictions an image, and by area."""
    return [*(f"AR{limit}" for limit in limits), *(f"AR{area}" for area in ("s", "m", "l"))]


def metric_names(cfg: CfgNode) -> list[str]:
    """The names that metrics.json may give the results of `build_evaluator` on DATASETS.TEST.

    [] if they are not known: TEST.BEST_METRIC is of a class, and a data set tells its classes only when it is read.
    """
    unread = [name for name in cfg.DATASETS.TEST if not MetadataCatalog.get(name).get("thing_classes")]
    if unread and "-" in cfg.TEST.BEST_METRIC[1:]:
        return []
    limits = (1, 10, evaluated_detections(cfg.TEST.DETECTIONS_PER_IMAGE))
    names: list[str] = []
    for dataset in cfg.DATASETS.TEST:
        metadata, masks = MetadataCatalog.get(dataset), cfg.MODEL.MASK_ON
        classes = metadata.get("thing_classes") or []
        of_classes = [f"AP-{name}" for name in classes] if len(classes) > 1 else []
        scores = ["AP", "AP50", "AP75", "APs", "APm", "APl", *recall_names(limits), *of_classes]
        tasks = ["segm"] * masks + ["bbox"] + ["boundary"] * cfg.TEST.BOUNDARY_AP
        found = [f"{task}/{score}" for task in tasks for score in scores]
        if metadata.get("evaluator_type") == "cityscapes_instance" and masks:
            found += [f"cityscapes/{score}{of}" for score in ("AP", "AP50") for of in ("", *(f"-{c}" for c in classes))]
        if cfg.TEST.PER_IMAGE_AP:
            found += [f"per_image/{score}" for score in ("AP", "cAP", "rAP", "cAP_counted")]
            found += [f"per_image/cAP-{name}" for name in classes]
        if cfg.TEST.TRUTH_BOXES:
            kinds = ["", "_image", *(f"-{name}" for name in classes if len(classes) > 1)]
            found += [f"{TASK}/{measure}{kind}" for kind in kinds for measure in MEASURES]
        names += [f"{dataset}/{name}" for name in found] if len(cfg.DATASETS.TEST) > 1 else found
    if cfg.TEST.AUG.ENABLED:
        # boxes that are told are not augmented
        names += [f"tta/{name}" for name in names if f"{TASK}/" not in name]
    average = cfg.MODEL.GAN.EMA
    return names + ([f"ema/{name}" for name in names] if average.DECAY > 0 and average.EVALUATE else [])
