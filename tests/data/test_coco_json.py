"""Data sets in COCO's format that a config names."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from support import plugin_cfg

from gan_plugin.data.builtin import prepare_datasets
from gan_plugin.errors import UserError


@pytest.fixture
def files(tmp_path):
    """A JSON file with two categories and one image with one object, and the image."""
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(tmp_path / "a.png")
    polygon = [[1.0, 1.0, 5.0, 1.0, 5.0, 4.0]]
    content = {
        "images": [{"id": 4, "file_name": "a.png", "height": 8, "width": 10}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 7, "bbox": [1, 1, 4, 3], "area": 6.0, "iscrowd": 0,
             "segmentation": polygon},
        ],
        "categories": [{"id": 3, "name": "bus"}, {"id": 7, "name": "car"}],
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(content))
    yield tmp_path
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop("named_by_config", None)


def cfg_for(*entries):
    cfg = plugin_cfg()
    cfg.merge_from_list(["DATASETS.COCO_JSON", repr(entries), "DATASETS.TRAIN", "('named_by_config',)"])
    cfg.DATASETS.TEST, cfg.MODEL.ROI_HEADS.NUM_CLASSES = (), 2
    return cfg


def test_the_config_registers_it(files):
    cfg = cfg_for(("named_by_config", str(files / "truth.json"), str(files)))
    # twice, as the processes of a run do
    for _ in range(2):
        prepare_datasets(cfg, train=True)
        (record,) = DatasetCatalog.get("named_by_config")
        assert record["file_name"] == str(files / "a.png") and record["annotations"][0]["category_id"] == 1
        metadata = MetadataCatalog.get("named_by_config")
        assert metadata.thing_classes == ["bus", "car"] and metadata.evaluator_type == "coco"


def test_what_is_wrong_is_a_sentence(files):
    with pytest.raises(UserError, match=r"each entry is \(name, JSON file, image folder\)"):
        prepare_datasets(cfg_for(("named_by_config", str(files / "truth.json"))), train=True)
    with pytest.raises(UserError, match="'named_by_config': it needs a path that does not exist .*nothing.json"):
        prepare_datasets(cfg_for(("named_by_config", str(files / "nothing.json"), str(files))), train=True)
