"""Mini-masks, crops and flips, and masks from polygons, against geometry worked by hand."""

import json

import cv2
import numpy as np
import pytest
from cityscapes_tuning.data import mapper as mini_mask
from cityscapes_tuning.data.mapper import PercentCrop
from cityscapes_tuning.data.parts import EIGHT, TEN, Part
from cityscapes_tuning.data.register import instance_masks, record_of, write_part
from detectron2.data import transforms as T
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle_tools
from support import plugin_cfg

from gan_plugin.errors import UserError


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@given(st.integers(0, 90), st.integers(0, 60), st.integers(1, 200), st.integers(1, 150))
def test_rectangles_survive_mini_masks(x, y, width, height):
    mask = np.zeros((220, 300), bool)
    mask[y : y + height, x : x + width] = True
    assert np.array_equal(mini_mask.round_trip(mask), mask)


def test_small_masks_survive_and_large_ones_lose_only_their_border():
    small, large = np.zeros((64, 64), np.uint8), np.zeros((600, 900), np.uint8)
    cv2.ellipse(small, (30, 30), (12, 9), 20, 0, 360, 1, -1)
    cv2.ellipse(large, (450, 300), (400, 250), 0, 0, 360, 1, -1)
    for mask, least in ((small, 0.97), (large, 0.97)):
        assert iou(mini_mask.round_trip(mask > 0), mask > 0) > least
    # a wall one pixel thin that crosses a large box is more than 56 pixels can hold
    frame = np.zeros((600, 900), bool)
    frame[0, :] = frame[-1, :] = frame[:, 0] = frame[:, -1] = True
    assert not mini_mask.round_trip(frame).any()


def test_an_empty_mask_stays_empty():
    assert not mini_mask.round_trip(np.zeros((10, 10), bool)).any()


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_percent_crop_keeps_centre_and_size(keep_aspect):
    np.random.seed(0)
    height, width = 200, 400
    image = np.zeros((height, width, 3), np.uint8)
    image[95:105, 195:205] = 255
    shares = []
    for _ in range(50):
        crop = PercentCrop(1.0, 0.2, keep_aspect).get_transform(image)
        assert crop.apply_image(image).shape == image.shape
        assert crop.apply_image(image).max() == 255
        cut = crop.transforms[0]
        assert cut.x0 <= 0.2 * width + 1 and width - cut.x0 - cut.w <= 0.2 * width + 1
        assert cut.y0 <= 0.2 * height + 1 and height - cut.y0 - cut.h <= 0.2 * height + 1
        shares.append((cut.w / width, cut.h / height))
        # a box that lies inside is moved as its corners are
        (box,) = crop.apply_box(np.array([[195, 95, 205, 105]], float))
        x0, y0 = (195 - cut.x0) * width / cut.w, (95 - cut.y0) * height / cut.h
        assert box[:2] == pytest.approx([x0, y0])
    distortion = max(abs(w - h) for w, h in shares)
    assert distortion < 0.01 if keep_aspect else distortion > 0.1


def test_flipping_twice_changes_nothing():
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 255, (40, 61, 3), np.uint8), rng.random((40, 61)) > 0.5
    boxes = np.array([[3.0, 4.0, 20.0, 30.0]])
    flip = T.HFlipTransform(61)
    assert np.array_equal(flip.apply_image(flip.apply_image(image)), image)
    assert np.array_equal(flip.apply_segmentation(flip.apply_segmentation(mask)), mask)
    assert np.allclose(flip.apply_box(flip.apply_box(boxes)), boxes)
    assert not np.array_equal(flip.apply_segmentation(mask), mask)


def write_image(root, objects, size=(40, 20), picture_size=None):
    image = root / "leftImg8bit/train/town/town_000000_000019_leftImg8bit.png"
    truth = root / "gtFine/train/town/town_000000_000019_gtFine"
    image.parent.mkdir(parents=True, exist_ok=True)
    truth.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", picture_size or size).save(image)
    content = {"imgWidth": size[0], "imgHeight": size[1], "objects": objects}
    (truth.parent / f"{truth.name}_polygons.json").write_text(json.dumps(content))
    for kind in ("instanceIds", "labelIds"):
        Image.new("I;16", size).save(truth.parent / f"{truth.name}_{kind}.png")
    return image, root / "gtFine/train", truth.parent / f"{truth.name}_polygons.json"


def square(label, x, y, side):
    return {"label": label, "polygon": [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]}


def test_later_polygons_hide_earlier_ones_and_groups_are_crowds(tmp_path):
    # cityscapesScripts fills a polygon with its border: a square of side 9 has 10 x 10 pixels
    objects = [
        square("car", 0, 0, 9),
        square("car", 5, 0, 9),
        square("persongroup", 20, 0, 4),
        square("road", 0, 12, 7),
    ]
    objects.append(square("trailer", 30, 10, 3))
    image, gt_dir, polygons = write_image(tmp_path, objects)
    found = {(name, group): mask.sum() for name, group, mask in instance_masks(polygons) if name != "car"}
    assert found == {("person", True): 25, ("trailer", False): 16}
    cars = sorted(mask.sum() for name, _, mask in instance_masks(polygons) if name == "car")
    assert cars == [50, 100]
    record = record_of(image, gt_dir, TEN)
    boxes = {(a["category_id"], a["iscrowd"]): a["bbox"] for a in record["annotations"]}
    assert boxes[TEN.index("trailer"), 0] == [30, 10, 34, 14]
    assert boxes[TEN.index("person"), 1] == [20, 0, 25, 5]
    for annotation in record["annotations"]:
        area = rle_tools.decode(annotation["segmentation"]).sum()
        assert area == rle_tools.area(annotation["segmentation"])
    assert len(record_of(image, gt_dir, EIGHT)["annotations"]) == 3


def test_an_image_without_instances_is_a_record(tmp_path):
    image, gt_dir, _ = write_image(tmp_path, [square("road", 0, 0, 9)])
    assert record_of(image, gt_dir, TEN)["annotations"] == []


@pytest.mark.parametrize(
    ("objects", "picture", "said"),
    [
        ([{"label": "car", "polygon": [[0, 0], [1, 1]]}], None, "fewer than three points"),
        ([square("spaceship", 0, 0, 5)], None, "does not define"),
        ([square("car", 0, 0, 5)], (30, 20), "30x20.*40x20"),
        ([square("road", 0, 0, 5)], None, "no image here has an object"),
    ],
)
def test_broken_truth_is_named(tmp_path, monkeypatch, objects, picture, said):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    _, _, polygons = write_image(tmp_path / "cityscapes", objects, picture_size=picture)
    with pytest.raises(UserError, match=said):
        write_part(Part(split="train"), tmp_path / "train.json", plugin_cfg(), TEN)
    polygons.unlink()
    with pytest.raises(UserError, match=f"{polygons.name}.* the annotation of an image is missing"):
        write_part(Part(split="train"), tmp_path / "train.json", plugin_cfg(), TEN)
    with pytest.raises(UserError, match="check `cities`"):
        write_part(Part(split="train", cities=("atlantis",)), tmp_path / "train.json", plugin_cfg(), TEN)


def test_an_object_with_deleted_0_is_one(tmp_path):
    image, gt_dir, _ = write_image(tmp_path, [square("car", 0, 0, 9) | {"deleted": 0}, square("car", 20, 0, 9)])
    assert len(record_of(image, gt_dir, TEN)["annotations"]) == 2


def test_the_two_sets_of_classes():
    slides = {"car", "person", "rider", "motorcycle", "bicycle", "bus", "trailer", "truck", "caravan", "train"}
    assert set(TEN) == slides and set(TEN) - set(EIGHT) == {"trailer", "caravan"}
