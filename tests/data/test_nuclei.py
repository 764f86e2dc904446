"""The nuclei: both forms of the data set give the same objects, pixel by pixel, and the same splits."""

import json

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from PIL import Image
from support import plugin_cfg

from gan_plugin.data.builtin import datasets_root, prepare_datasets, register_nuclei
from gan_plugin.errors import UserError

SIDE = 40
NAMES = ("nuclei", "nuclei_train", "nuclei_val", "nuclei_train_a", "nuclei_train_b", "nuclei_train_eval")


@pytest.fixture
def truth():
    """Name -> masks of 20 pictures; nuclei may have holes, several parts, and overlap."""
    random = np.random.default_rng(3)
    return {
        f"{number:012x}": [
            np.kron(random.random((10, 10)) < density, np.ones((4, 4), bool)) for density in (0.1, 0.4, 0.8)
        ]
        for number in random.choice(2**40, 20, replace=False)
    }


@pytest.fixture
def both_forms(truth, tmp_path):
    """Two data roots, with the COCO form and with the Bowl's own, whose masks are of several kinds of files."""
    coco, bowl = tmp_path / "coco", tmp_path / "bowl"
    (coco / "dsb2018/images").mkdir(parents=True)
    content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "nucleus"}]}
    for number, (name, masks) in enumerate(truth.items(), start=1):
        own = bowl / "dsb2018/stage1_train" / name
        for part in ("images", "masks"):
            (own / part).mkdir(parents=True)
        picture = Image.fromarray(np.full((SIDE, SIDE, 4), 99, np.uint8))
        picture.save(own / f"images/{name}.png")
        picture.save(coco / f"dsb2018/images/{name}.png")
        content["images"].append({"id": number, "file_name": f"{name}.png", "width": SIDE, "height": SIDE})
        for index, mask in enumerate(masks):
            file = Image.fromarray(mask.astype(np.uint8) * (255, 1, 255)[index])
            (file.convert("1") if index == 2 else file).save(own / f"masks/{index}.png")
            runs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 7,
                    "iscrowd": 0,
                    "area": int(mask.sum()),
                    "bbox": coco_mask.toBbox(runs).tolist(),
                    "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
                }
            )
    (coco / "dsb2018/instances.json").write_text(json.dumps(content))
    yield coco, bowl
    register_nuclei(datasets_root())


def ids(name):
    return [record["image_id"] for record in DatasetCatalog.get(name)]


def test_both_forms_give_the_same_pixels_and_splits(both_forms, truth):
    drawn = []
    for root in both_forms:
        assert register_nuclei(root) == list(NAMES)
        for record in DatasetCatalog.get("nuclei"):
            masks = truth[record["image_id"]]
            for annotation, mask in zip(record["annotations"], masks, strict=True):
                runs = coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], SIDE, SIDE))
                np.testing.assert_array_equal(coco_mask.decode(runs), mask)
        drawn.append([sorted(ids(name)) for name in NAMES])
        everything, train, val, a, b, held_out = drawn[-1]
        assert sorted(train + val) == everything and len(val) == 2
        assert sorted(a + b + held_out) == train
        assert MetadataCatalog.get("nuclei_train_a").thing_classes == ["nucleus"]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_a_config_names_them_and_both_mask_formats_map(both_forms, tmp_path, mask_format):
    register_nuclei(both_forms[0])
    cfg = plugin_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.MODEL.MASK_ON, cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.INPUT.MASK_FORMAT = True, 1, mask_format
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("nuclei_train_a", "nuclei_train_b"), ("nuclei_val",)
    assert prepare_datasets(cfg, train=True) == []
    assert mask_format == cfg.INPUT.MASK_FORMAT
    plain = get_cfg()
    plain.MODEL.MASK_ON, plain.INPUT.MASK_FORMAT = True, mask_format
    mapped = DatasetMapper(plain, True)(DatasetCatalog.get("nuclei_train_a")[0])
    assert len(mapped["instances"]) == 3 and mapped["instances"].has("gt_masks")


def test_all_that_is_wrong_is_told_at_once(both_forms):
    coco, bowl = both_forms
    first, second, third, fourth, *_ = sorted((bowl / "dsb2018/stage1_train").iterdir())
    (first / "masks/1.png").write_bytes(b"no picture")
    Image.fromarray(np.ones((5, 6), np.uint8)).save(second / "masks/0.png")
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(third / "masks/2.png")
    next((fourth / "images").iterdir()).unlink()
    register_nuclei(bowl)
    with pytest.raises(UserError) as caught:
        DatasetCatalog.get("nuclei_val")
    told = str(caught.value).splitlines()
    assert len(told) == 4
    for place in (first / "masks/1.png", second / "masks/0.png", third / "masks/2.png", fourth / "images"):
        assert sum(str(place) in line for line in told) == 1, place
    (coco / "dsb2018/instances.json").rename(coco / "dsb2018/other.json")
    register_nuclei(coco)
    with pytest.raises(UserError, match=r"neither instances.json .* nor stage1_train"):
        DatasetCatalog.get("nuclei_train")
