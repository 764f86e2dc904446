"""Penn-Fudan: the split, exact masks as polygons, the annotation files as independent truth, and clear errors."""

import os
import re
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gan_plugin.data.builtin import PENN_FUDAN_SPLITS, register_penn_fudan, split_penn_fudan
from gan_plugin.data.masks import mask_to_polygons
from gan_plugin.errors import UserError

REAL = Path(os.environ.get("PENN_FUDAN_ROOT", Path(__file__).resolve().parents[3] / "shared" / "data"))
needs_penn_fudan = pytest.mark.skipif(
    not (REAL / "PennFudanPed").is_dir(), reason="the Penn-Fudan images are not on this machine (PENN_FUDAN_ROOT)"
)


def rasterised(polygons, shape):
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))).astype(bool)


@pytest.fixture
def small_set(tmp_path):
    """Nine images of 30x20 with two pedestrians each, one of them with a hole."""
    folder = tmp_path / "PennFudanPed"
    for part in ("PNGImages", "PedMasks"):
        (folder / part).mkdir(parents=True)
    for i in range(9):
        labels = np.zeros((20, 30), np.uint8)
        labels[2:12, 3:11], labels[5:8, 6:8], labels[10:19, 20 : 22 + i] = 1, 0, 2
        Image.fromarray(np.full((20, 30, 3), 20 * i, np.uint8)).save(folder / "PNGImages" / f"Toy{i}.png")
        Image.fromarray(labels).save(folder / "PedMasks" / f"Toy{i}_mask.png")
    yield tmp_path
    for split in PENN_FUDAN_SPLITS:
        DatasetCatalog.pop(f"small_{split}", None)
        MetadataCatalog.pop(f"small_{split}", None)


def load(root, split="train_a"):
    register_penn_fudan(root, prefix="small", sizes=(4, 4, 1))
    return DatasetCatalog.get(f"small_{split}")


@pytest.mark.parametrize(("count", "expected"), [(170, [75, 75, 20]), (150, [66, 66, 18])])
def test_split_uses_every_name_once_in_proportion(count, expected):
    names = [f"n{i}" for i in range(count)]
    split = split_penn_fudan(names, seed=0)
    assert [len(split[part]) for part in PENN_FUDAN_SPLITS] == expected
    assert sorted(sum(split.values(), [])) == sorted(names)
    assert split == split_penn_fudan(names[::-1], seed=0)
    assert split != split_penn_fudan(names, seed=1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.95), st.integers(1, 4))
def test_polygons_give_back_every_pixel(seed, density, block):
    cells = np.random.default_rng(seed).random((6, 7)) < density
    mask = np.kron(cells, np.ones((block, block), bool))
    if mask.any():
        np.testing.assert_array_equal(rasterised(mask_to_polygons(mask), mask.shape), mask)


def test_records_hold_exact_boxes_and_masks_and_registering_is_lazy_and_repeatable(small_set, tmp_path):
    register_penn_fudan(tmp_path / "not there yet", prefix="small")
    assert [len(load(small_set, split)) for split in PENN_FUDAN_SPLITS] == [4, 4, 1]
    record = load(small_set)[0]
    index = int(record["image_id"].removeprefix("Toy"))
    first, second = record["annotations"]
    assert (record["height"], record["width"]) == (20, 30)
    assert first["bbox"] == [3, 2, 11, 12]
    assert second["bbox"] == [20, 10, 22 + index, 19]
    assert rasterised(first["segmentation"], (20, 30)).sum() == 10 * 8 - 3 * 2
    assert MetadataCatalog.get("small_train_a").thing_classes == ["person"]
    register_penn_fudan(small_set, prefix="small", sizes=(1, 1, 1))
    assert len(DatasetCatalog.get("small_val")) == 3


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_both_mask_formats_map(small_set, mask_format):
    cfg = get_cfg()
    cfg.INPUT.MASK_FORMAT, cfg.MODEL.MASK_ON = mask_format, True
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (20,), "none"
    instances = DatasetMapper(cfg, True)(load(small_set)[0])["instances"]
    pixels = instances.gt_masks[[0]].crop_and_resize(instances.gt_boxes[[0]].tensor, 8).sum()
    # the 10 x 8 box on an 8 x 8 grid: 74 of its 80 pixels are person
    assert abs(float(pixels) - 64 * 74 / 80) <= 4


def test_broken_files_are_sentences_that_name_them(small_set):
    folder = small_set / "PennFudanPed"
    name = load(small_set)[0]["image_id"]
    mask, image = folder / "PedMasks" / f"{name}_mask.png", folder / "PNGImages" / f"{name}.png"
    intact = mask.read_bytes()
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(mask)
    with pytest.raises(UserError, match=f"{mask} is 6x5 pixels, its image 30x20"):
        load(small_set)
    mask.write_bytes(intact[: len(intact) // 2])
    with pytest.raises(UserError, match=f"{mask}: the image cannot be decoded"):
        load(small_set)
    mask.unlink()
    with pytest.raises(UserError, match=f"{mask}: the image does not exist.*the mask of {name}.png"):
        load(small_set)
    mask.write_bytes(intact)
    image.write_bytes(b"no image")
    with pytest.raises(UserError, match=f"{image}: the image cannot be decoded"):
        load(small_set)
    with pytest.raises(UserError, match="PNGImages does not exist; unpack"):
        load(small_set / "elsewhere")


@needs_penn_fudan
def test_real_boxes_and_counts_agree_with_the_annotation_files():
    names = register_penn_fudan(REAL, prefix="small")
    records = [record for name in names for record in DatasetCatalog.get(name)]
    assert len(records) == len(list((REAL / "PennFudanPed" / "PNGImages").glob("*.png")))
    gaps = []
    for record in records:
        text = (REAL / "PennFudanPed" / "Annotation" / f"{record['image_id']}.txt").read_text(errors="replace")
        written = re.findall(r"\(Xmax, Ymax\) : \((\d+), (\d+)\) - \((\d+), (\d+)\)", text)
        boxes = [annotation["bbox"] for annotation in record["annotations"]]
        assert len(boxes) == len(written) == int(re.search(r"ground truth : (\d+)", text)[1])
        # the files count pixels from 1 and include the last one
        truth = np.array(written, float) - [1, 1, 0, 0]
        gaps += list(np.abs(np.array(boxes) - truth).max(axis=1))
    assert max(gaps) <= 3
    assert np.mean(np.array(gaps) == 0) > 0.95


@needs_penn_fudan
def test_real_masks_survive_the_polygons():
    register_penn_fudan(REAL, prefix="small")
    for record in DatasetCatalog.get("small_val"):
        labels = np.asarray(Image.open(REAL / "PennFudanPed" / "PedMasks" / f"{record['image_id']}_mask.png"))
        for label, annotation in zip(np.unique(labels)[1:], record["annotations"], strict=True):
            np.testing.assert_array_equal(rasterised(annotation["segmentation"], labels.shape), labels == label)
