"""Choose the evaluator of a data set from its metadata."""

import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError
from gan_plugin.evaluation.cityscapes import CityscapesInstanceMetrics
from gan_plugin.evaluation.fast_cityscapes import FastCityscapesInstanceEvaluator

EVALUATOR_TYPES = ("cityscapes_instance", "coco")


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """The evaluator of `dataset_name`, chosen by the `evaluator_type` in its metadata.

    Args:
        cfg: MODEL.MASK_ON decides whether masks are measured, TEST.CITYSCAPES_EVALUATOR by which of two ways to the
            Cityscapes AP, OUTPUT_DIR where files go.
        dataset_name: a registered data set.
        output_folder: for the predictions and the truth in COCO format; OUTPUT_DIR/inference/<dataset_name> if None.

    Returns:
        "coco": COCOEvaluator ("bbox" and, with masks, "segm"). "cityscapes_instance": the same plus, with masks, the
        Cityscapes AP under "cityscapes". All scores are in percent.

    Raises:
        UserError: another evaluator_type, or none; another TEST.CITYSCAPES_EVALUATOR.
    """
    way = check_choice("TEST.CITYSCAPES_EVALUATOR", cfg.TEST.CITYSCAPES_EVALUATOR)
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type not in EVALUATOR_TYPES:
        raise UserError(
            f"The data set '{dataset_name}' has evaluator_type {evaluator_type!r}, for which there is no evaluator; "
            f"set it in its metadata to one of: {', '.join(EVALUATOR_TYPES)}."
        )
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
    coco = _coco_evaluator(dataset_name, folder, cfg.MODEL.MASK_ON)
    if evaluator_type == "cityscapes_instance" and cfg.MODEL.MASK_ON:
        cityscapes = FastCityscapesInstanceEvaluator if way == "fast" else CityscapesInstanceMetrics
        return DatasetEvaluators([cityscapes(dataset_name), coco])
    return coco


def _coco_evaluator(dataset_name: str, folder: str, masks: bool) -> COCOEvaluator:
    metadata = MetadataCatalog.get(dataset_name)
    # An earlier COCOEvaluator leaves the file it converted the truth to in the metadata. The next one would use it
    # unseen, though it may be deleted by now or describe other images.
    if os.path.basename(metadata.get("json_file", "")) == f"{dataset_name}_coco_format.json":
        del metadata.json_file
    tasks = ("bbox", "segm") if masks else ("bbox",)
    return COCOEvaluator(dataset_name, tasks=tasks, output_dir=folder, allow_cached_coco=False)
