"""Scenes of both formats against the official tools, and annotations that are broken."""

import json
from pathlib import Path

import numpy as np
import pytest
from car_gan.scenes.cityscapes import Cityscapes, paint
from car_gan.scenes.sources import Coco
from PIL import Image
from pycocotools.coco import COCO

from gan_plugin.data.cityscapes import parse_polygons
from gan_plugin.errors import UserError

CAR = 26


def test_masks_are_those_of_the_official_script(toy):
    """gtFine_instanceIds.png is written by cityscapesScripts; ours are painted from the polygons."""
    source, seen = Cityscapes(toy), 0
    assert [file.name.split("/")[0] for file in source.files()] == ["train"] * 32 + ["val"] * 2
    for file in source.files():
        scene = source.load(file)
        official = np.asarray(Image.open(file.truth.replace("_polygons.json", "_instanceIds.png")))
        painted = np.zeros(scene.shape, bool)
        for thing in scene.objects:
            if thing.label == "car" and not thing.group:
                mask = thing.full_mask(scene.shape)
                assert np.array_equal(mask, official == CAR * 1000 + thing.number)
                painted |= mask
                seen += thing.area > 0
        assert np.array_equal(painted, official // 1000 == CAR)
        assert np.array_equal(scene.road, official == 7)
    assert seen > 10


def square(label, x, y, side):
    return {"label": label, "polygon": [[x, y], [x + side - 1, y], [x + side - 1, y + side - 1], [x, y + side - 1]]}


def painted(entries):
    content = {"imgHeight": 12, "imgWidth": 20, "objects": entries}
    return paint(parse_polygons(json.dumps(content).encode("utf-8-sig"), "truth.json"))


def test_what_a_nearer_object_hides_is_counted():
    """A car of 10x10 pixels under a person of 5x5 in its corner, and a second car behind the first one."""
    entries = [square("car", 0, 0, 4), square("car", 0, 0, 10), square("person", 5, 5, 5), square("cargroup", 14, 2, 3)]
    scene = painted(entries)
    behind, car, person, group = scene.objects
    assert (car.area, car.outline_area, car.visible, car.number) == (75, 100, 0.75, 1)
    assert car.box == (0, 0, 10, 10) == car.outline and person.box == (5, 5, 10, 10)
    assert (behind.area, behind.visible, behind.number) == (0, 0.0, 0)
    assert group.group and group.label == "car" and not scene.road.any()


@pytest.mark.parametrize(
    "entry, sentence",
    [
        ({"label": "car", "polygon": [[1, 1], [4, 4]]}, "a polygon has fewer than three points"),
        (square("cargroup", 30, 2, 5), "the object lies outside of the picture"),
        ({"label": "car", "polygon": [[1, 1], [4, float("nan")], [2, 2]]}, "a coordinate is no finite number"),
        (square("car", 1e9, 2, 5), "a coordinate lies farther outside"),
    ],
)
def test_a_broken_polygon_is_named_and_the_others_stay(entry, sentence):
    scene = painted([entry, square("car", 0, 0, 4), square("car", 0, 0, 4) | {"deleted": 1}])
    ((label, said),) = scene.broken
    assert label == "car" and said.startswith(f"truth.json, object 0 ({entry['label']}): ") and sentence in said
    assert [thing.area for thing in scene.objects] == [16]


def test_an_object_that_was_not_deleted_and_one_without_points(tmp_path):
    scene = painted([square("car", 0, 0, 4) | {"deleted": 0}, {"label": "car", "polygon": []}])
    assert [thing.area for thing in scene.objects] == [16] and not scene.broken


@pytest.fixture
def coco(tmp_path):
    """A COCO file with a polygon, run lengths, a crowd, an empty and an outside mask."""
    polygon = [[2.0, 2.0, 8.0, 2.0, 8.0, 9.0, 2.0, 9.0]]
    masks = [
        polygon,
        {"size": [12, 20], "counts": [24, 12, 204]},
        {"size": [12, 20], "counts": [0, 24, 216]},
        [],
        [[100.0, 100.0, 110.0, 100.0, 110.0, 110.0]],
        [[1.0, 1.0, 2.0, 2.0]],
    ]
    annotations = [
        {"id": index, "image_id": 7, "category_id": 3, "iscrowd": int(index == 3), "segmentation": mask}
        for index, mask in enumerate(masks, start=1)
    ]
    content = {
        "images": [{"id": 7, "file_name": "street/a.jpg", "height": 12, "width": 20}],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "car"}, {"id": 9, "name": "boat"}],
    }
    (tmp_path / "street").mkdir()
    Image.new("RGB", (20, 12)).save(tmp_path / "street/a.jpg")
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_coco_masks_are_those_of_pycocotools(coco, tmp_path):
    with pytest.raises(UserError, match="annotation 4: there is no mask.*or leave such entries out with SKIP_BROKEN"):
        Coco(coco, tmp_path, "stop", "SKIP_BROKEN True")
    source = Coco(coco, tmp_path, "skip", "SKIP_BROKEN True")
    (file,) = source.files()
    assert (file.name, file.image) == ("street/a", tmp_path / "street/a.jpg")
    scene, official = source.load(file), COCO(str(coco))
    for thing, index in zip(scene.objects, (1, 2, 3), strict=True):
        assert np.array_equal(thing.full_mask(scene.shape), official.annToMask(official.anns[index]).astype(bool))
    assert [thing.group for thing in scene.objects] == [False, False, True]
    assert scene.broken == [("car", f"{coco}, annotation {key}: it is broken.") for key in (4, 5, 6)]


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda f: Cityscapes(f / "nothing"), "nothing has no leftImg8bit"),
        (lambda f: Cityscapes(f, ["dev"]), "The split 'dev' is unknown"),
        (lambda f: Coco(f / "no.json", f), "no.json: the file cannot be read"),
        (lambda f: Coco(f / "list.json", f), "list.json: this is no COCO JSON"),
    ],
)
def test_a_source_that_is_not_there(tmp_path, make, sentence):
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UserError, match=sentence):
        make(tmp_path)


def test_broken_cityscapes_files(toy, tmp_path):
    import shutil

    shutil.copytree(toy / "cityscapes", tmp_path / "cityscapes")
    source = Cityscapes(tmp_path)
    first, second = source.files()[:2]
    Path(first.truth).write_text('{"objects": [')
    with pytest.raises(UserError, match="this is not valid JSON"):
        source.load(first)
    ship = square("spaceship", 0, 0, 8)
    Path(second.truth).write_text(json.dumps({"imgHeight": 192, "imgWidth": 384, "objects": [ship]}))
    ((label, said),) = source.load(second).broken
    assert label == "" and "object 0 (spaceship): Cityscapes does not define the label 'spaceship'" in said
    with pytest.raises(UserError, match="not valid JSON") as caught:
        Cityscapes(tmp_path)
    assert "the label 'spaceship'" in str(caught.value) and first.truth in str(caught.value)
    Path(first.truth).unlink()
    with pytest.raises(UserError, match="polygons.json: the annotation of an image is missing"):
        Cityscapes(tmp_path, on_bad="skip")
