"""Choose the evaluators of a data set from its metadata and the config."""

import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError
from gan_plugin.evaluation.cityscapes import CityscapesInstanceMetrics
from gan_plugin.evaluation.per_image_ap import PerImageAP

EVALUATOR_TYPES = ("cityscapes_instance", "coco")


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """The evaluator of `dataset_name`, chosen by the `evaluator_type` in its metadata.

    Args:
        cfg: MODEL.MASK_ON decides whether masks are measured, OUTPUT_DIR where files go; TEST.COCO_EVALUATOR,
            TEST.BOUNDARY_AP and TEST.PER_IMAGE_AP as `add_gan_config` explains them.
        dataset_name: a registered data set.
        output_folder: for the predictions and the truth in COCO format; OUTPUT_DIR/inference/<dataset_name> if None.

    Returns:
        "coco": COCOEvaluator ("bbox" and, with masks, "segm"). "cityscapes_instance": the same plus, with masks, the
        official Cityscapes AP under "cityscapes". Both with "boundary" and "per_image" where the config asks for
        them. All scores are in percent.

    Raises:
        UserError: another evaluator_type, or none; keys that contradict each other.
    """
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type not in EVALUATOR_TYPES:
        raise UserError(
            f"The data set '{dataset_name}' has evaluator_type {evaluator_type!r}, for which there is no evaluator; "
            f"set it in its metadata to one of: {', '.join(EVALUATOR_TYPES)}."
        )
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
    check_evaluation(cfg)
    coco = _coco_evaluator(cfg, dataset_name, folder)
    evaluators: list[DatasetEvaluator] = [coco]
    if evaluator_type == "cityscapes_instance" and cfg.MODEL.MASK_ON:
        evaluators.insert(0, CityscapesInstanceMetrics(dataset_name))
    if cfg.TEST.PER_IMAGE_AP:
        evaluators.append(PerImageAP(dataset_name, coco._coco_api))
    return DatasetEvaluators(evaluators) if len(evaluators) > 1 else coco


def check_evaluation(cfg: CfgNode) -> None:
    """Raise a UserError if the keys of TEST ask for what cannot be measured together."""
    evaluator = check_choice("TEST.COCO_EVALUATOR", cfg.TEST.COCO_EVALUATOR)
    for key, wanted in (("BOUNDARY_AP", cfg.TEST.BOUNDARY_AP), ("PER_IMAGE_AP", cfg.TEST.PER_IMAGE_AP)):
        if wanted and not cfg.MODEL.MASK_ON:
            raise UserError(f"TEST.{key} measures masks, but MODEL.MASK_ON is False; set TEST.{key} to False.")
    if cfg.TEST.BOUNDARY_AP and evaluator != "faster":
        raise UserError('TEST.BOUNDARY_AP needs TEST.COCO_EVALUATOR "faster": pycocotools has no Boundary AP.')


def _coco_evaluator(cfg: CfgNode, dataset_name: str, folder: str) -> COCOEvaluator:
    metadata = MetadataCatalog.get(dataset_name)
    # An earlier COCOEvaluator leaves the file it converted the truth to in the metadata. The next one would use it
    # unseen, though it may be deleted by now or describe other images.
    if os.path.basename(metadata.get("json_file", "")) == f"{dataset_name}_coco_format.json":
        del metadata.json_file
    tasks: tuple[str, ...] = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    if cfg.TEST.COCO_EVALUATOR == "faster":
        # Here, so that the default still runs in an environment from before this evaluator.
        from gan_plugin.evaluation.fast_coco import FastCOCOEvaluator

        tasks += ("boundary",) if cfg.TEST.BOUNDARY_AP else ()
        return FastCOCOEvaluator(dataset_name, tasks=tasks, output_dir=folder, allow_cached_coco=False)
    return COCOEvaluator(dataset_name, tasks=tasks, output_dir=folder, allow_cached_coco=False)
