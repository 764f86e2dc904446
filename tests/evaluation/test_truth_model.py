"""A model that knows the truth of decorated Cityscapes sets: whatever else is in their files, every AP is 100."""

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.labels import labels
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.cityscapes import load_cityscapes_instances
from detectron2.evaluation import inference_on_dataset
from detectron2.structures import Boxes, Instances
from streets import DECORATIONS, HEIGHT, OBJECTS, WIDTH, write_streets
from support import plugin_cfg

from gan_plugin.data.builtin import prepare_datasets
from gan_plugin.data.examine import restore
from gan_plugin.engine.trainer import AdversarialTrainer
from gan_plugin.evaluation.build import build_evaluator

NAME = "decorated_cityscapes"
CLASSES = [label.name for label in labels if label.hasInstances and not label.ignoreInEval]


class KnowsTheTruth(torch.nn.Module):
    """Answers with the rectangles that `write_streets` draws, never with what a file says."""

    def forward(self, batch):
        return [{"instances": self._answer(int(record["file_name"].split("_")[-3]))} for record in batch]

    def _answer(self, number):
        masks, boxes, classes = [], [], []
        for label, polygon in OBJECTS[1:]:
            (left, top), (right, bottom) = (
                np.array(polygon).min(0) + (number, 0),
                np.array(polygon).max(0) + (number, 0),
            )
            mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
            # cityscapesScripts' painter fills an outline with its border
            mask[top : bottom + 1, left : right + 1] = True
            masks.append(mask)
            boxes.append([left, top, right + 1, bottom + 1])
            classes.append(CLASSES.index(label))
        return Instances(
            (HEIGHT, WIDTH),
            pred_masks=torch.stack(masks),
            pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float)),
            pred_classes=torch.tensor(classes),
            scores=torch.full((len(masks),), 0.9),
        )


@pytest.mark.parametrize("evaluator", ["official", "fast"])
def test_every_ap_of_the_truth_is_100_on_decorated_sets(tmp_path, evaluator):
    """A picture for each decoration, and one that is as Cityscapes has it."""
    paths = write_streets(tmp_path, "val", counts=(4, 4, len(DECORATIONS) - 7))
    for decorate, path in zip(DECORATIONS.values(), paths, strict=False):
        decorate(path)
    image_dir, gt_dir = (str(tmp_path / "cityscapes" / part / "val") for part in ("leftImg8bit", "gtFine"))
    DatasetCatalog.register(NAME, lambda: load_cityscapes_instances(image_dir, gt_dir))
    MetadataCatalog.get(NAME).set(
        thing_classes=CLASSES, image_dir=image_dir, gt_dir=gt_dir, evaluator_type="cityscapes_instance"
    )
    try:
        cfg = plugin_cfg()
        cfg.MODEL.MASK_ON, cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.DEVICE = True, len(CLASSES), "cpu"
        cfg.DATASETS.TEST, cfg.DATALOADER.NUM_WORKERS = (NAME,), 0
        cfg.OUTPUT_DIR, cfg.TEST.CITYSCAPES_EVALUATOR, cfg.TEST.PER_IMAGE_AP = str(tmp_path), evaluator, True
        prepare_datasets(cfg, train=False)
        loader = AdversarialTrainer.build_test_loader(cfg, NAME)
        scores = inference_on_dataset(KnowsTheTruth(), loader, build_evaluator(cfg, NAME))
    finally:
        restore(NAME)
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)
    assert scores["cityscapes"] == pytest.approx(
        {key: 100 for key in ("AP", "AP50", "AP-person", "AP50-person", "AP-car", "AP50-car")}
    )
    assert scores["segm"]["AP"] == pytest.approx(100) and scores["per_image"]["AP"] == pytest.approx(100)
