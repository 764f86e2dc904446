"""Checks: every user mistake about data is one sentence with the path in it; images without instances train."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets.cityscapes import load_cityscapes_instances
from detectron2.structures import BoxMode
from PIL import Image
from streets import write_streets

from gan_plugin.data.examine import Demand, prepare
from gan_plugin.data.mappers import CheckedDatasetMapper
from gan_plugin.data.subsets import DEFAULT_SIZES
from gan_plugin.errors import UserError, sentence_of

NAME = "checked_cityscapes"


@pytest.fixture
def cityscapes(tmp_path):
    """Three streets, registered under NAME; their polygon files."""
    polygons = write_streets(tmp_path)
    image_dir, gt_dir = (str(tmp_path / "cityscapes" / part / "train") for part in ("leftImg8bit", "gtFine"))
    DatasetCatalog.register(NAME, lambda: load_cityscapes_instances(image_dir, gt_dir))
    MetadataCatalog.get(NAME).set(
        image_dir=image_dir, gt_dir=gt_dir, evaluator_type="cityscapes_instance", thing_classes=["person"]
    )
    yield polygons
    for name in [name for name in DatasetCatalog.list() if name.startswith(NAME)]:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


@pytest.fixture
def record(tmp_path):
    """A 30x20 image and its record with one triangle."""
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    triangle = {"bbox": [1, 1, 9, 9], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0}
    triangle["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    return {"file_name": str(path), "image_id": "i", "height": 20, "width": 30, "annotations": [triangle]}


def checked_mapper(mask_format="polygon", crop=False):
    cfg = get_cfg()
    cfg.MODEL.MASK_ON, cfg.INPUT.MASK_FORMAT, cfg.INPUT.MIN_SIZE_TRAIN = True, mask_format, (20,)
    cfg.INPUT.CROP.ENABLED = crop
    return CheckedDatasetMapper(DatasetMapper(cfg, is_train=True))


def check_datasets(names):
    prepare(Demand(train=names, test=(), sizes=DEFAULT_SIZES), "nowhere", pictures=False)


def test_a_complete_set_and_its_subsets_pass(cityscapes):
    check_datasets([NAME, f"{NAME}_a", f"{NAME}_eval"])
    assert f"{NAME}_b" in DatasetCatalog


def test_missing_folders_tell_where_and_both_ways_out(cityscapes, monkeypatch):
    MetadataCatalog.get(NAME).__dict__["gt_dir"] = "/nowhere/gtFine"
    monkeypatch.setenv("DETECTRON2_DATASETS", "/nowhere")
    with pytest.raises(UserError) as caught:
        check_datasets([NAME])
    for part in ("/nowhere/gtFine", "DETECTRON2_DATASETS is /nowhere", "cityscapes-dataset.com", "make_toy_cityscapes"):
        assert part in str(caught.value)


def test_broken_annotations_are_told_together(cityscapes):
    cityscapes[0].write_text('{"objects": [')
    cityscapes[2].unlink()
    with pytest.raises(UserError) as caught:
        check_datasets([NAME])
    sentences = str(caught.value).splitlines()
    assert len(sentences) == 2 and all(str(cityscapes[place]) in "".join(sentences) for place in (0, 2))


def test_unknown_names_and_missing_files_of_other_sets():
    with pytest.raises(UserError, match="did you mean .*coco_2017_val"):
        check_datasets(["coco_2017_vall"])
    with pytest.raises(UserError, match="'coco_2017_val': it needs a path .*DETECTRON2_DATASETS"):
        check_datasets(["coco_2017_val"])


def test_an_image_that_does_not_decode_is_named_also_from_a_worker(record):
    path = record["file_name"]
    with open(path, "rb") as file:
        half = file.read()[:600]
    with open(path, "wb") as file:
        file.write(half)
    loader = torch.utils.data.DataLoader([record], num_workers=1, collate_fn=lambda batch: checked_mapper()(batch[0]))
    with pytest.raises(UserError) as caught:
        next(iter(loader))
    assert sentence_of(caught.value).startswith(f"{path}: the image cannot be decoded")


def test_an_image_of_another_size_is_named_and_other_errors_pass_through(record):
    with pytest.raises(UserError, match="is of another size than its annotations say .30x20 pixels, not 31x20"):
        checked_mapper()(record | {"width": 31})
    record["annotations"][0]["segmentation"] = "nonsense"
    with pytest.raises(ValueError, match="segmentation"):
        checked_mapper()(record)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize("crowd_only", [False, True])
def test_an_image_without_instances_has_the_fields_of_one_with(record, mask_format, crop, crowd_only):
    mapper = checked_mapper(mask_format, crop)
    with_instances = mapper(record)["instances"]
    record["annotations"] = [record["annotations"][0] | {"iscrowd": 1}] if crowd_only else []
    without = mapper(record)["instances"]
    assert len(without) == len(without.gt_boxes) == len(without.gt_masks) == 0
    assert without.get_fields().keys() == with_instances.get_fields().keys()
    assert type(without.gt_masks) is type(with_instances.gt_masks)
    assert without.gt_masks.crop_and_resize(without.gt_boxes.tensor, 28).shape == (0, 28, 28)
