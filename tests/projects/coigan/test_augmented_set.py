"""A synthetic set beside the real one: every mask labelled, every image accounted for."""

import json
from dataclasses import replace

import numpy as np
import pytest
from coigan.augmentation import BASELINES, RealObjects, Source, write_augmented
from coigan.commands.augment import _count
from coigan.data.images import write_png
from coigan.data.line_sets import LineSet, coco_content
from coigan.data.objects import ObjectStore
from coigan.data.placer import Placer
from coigan.data.prepare import PrepareOptions, prepare
from coigan.data.stages import open_prepared
from detectron2.data.datasets.coco import load_coco_json
from pycocotools import mask as coco_mask

from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError


@pytest.fixture(scope="module")
def steel(tmp_path_factory):
    """12 toy sheets of 64x136 with tiles of 64; for reading only."""
    out = tmp_path_factory.mktemp("prepared") / "steel"
    prepare("toy", out, PrepareOptions(tile=64, workers=1, toy_count=12, toy_size=(64, 136)))
    return open_prepared(out)


class _Recorded(Placer):
    """Keeps what it placed, as the truth that the files are compared with."""

    def __init__(self, *args):
        super().__init__(*args)
        self.placed = []

    def place(self, *args, **options):
        self.placed.append(super().place(*args, **options))
        return self.placed[-1]


def _source(steel, classes=None):
    stores = [ObjectStore(steel.objects(number)) for number in range(len(steel.classes))]
    return Source(steel.tiles("base"), _Recorded(stores, steel.tile, (0.1, 0.4, 0.4, 0.1)), classes or steel.classes)


def test_every_mask_is_labelled_beside_the_real_images(steel, tmp_path):
    source, real = _source(steel), LineSet(steel.root / "train")
    path = write_augmented(tmp_path / "set", source, BASELINES["copy_paste"], 5, 1, {"method": "copy_paste"}, real)
    records = load_coco_json(str(path), str(path.parent / "images"))
    assert len(records) == len(real) + 5
    content, truth = json.loads(path.read_text()), coco_content(real)
    fields = set(truth["annotations"][0])
    kept = [entry for entry in content["annotations"] if not entry["synthetic"]]
    assert [{key: entry[key] for key in fields} for entry in kept] == truth["annotations"]
    for record in real.store:
        assert (path.parent / "images" / record["img"]).read_bytes() == real.path(record).read_bytes()
    by_id = {entry["id"]: entry for entry in content["annotations"]}
    assert len(by_id) == len(content["annotations"]) == len(kept) + sum(len(p.objects) for p in source.placer.placed)
    lines = [json.loads(line) for line in (path.parent / "provenance.jsonl").read_text().splitlines()]
    images = {image["id"]: image for image in content["images"]}
    for line, placement in zip(lines, source.placer.placed, strict=True):
        assert {"base", "seed", "method"} <= set(line) and line["synthetic"]
        for entry, (label, mask, key) in zip(line["objects"], placement.objects, strict=True):
            label_of_mask = by_id[entry["annotation"]]
            assert (coco_mask.decode(label_of_mask["segmentation"]).astype(bool) == mask).all()
            assert label_of_mask["object"] == entry["object"] == key and label_of_mask["synthetic"]
            assert label_of_mask["category_id"] == label + 1
            assert images[label_of_mask["image_id"]]["file_name"] == line["file_name"]
    assert {entry["name"] for entry in content["licenses"]} == {"source images", "LaMa", "perceptual weights"}


def test_a_hole_in_an_object_stays_a_hole(steel, tmp_path):
    ring = np.zeros((64, 64), bool)
    ring[10:30, 10:30], ring[15:25, 15:25] = True, False
    canvases = np.full((1, 64, 64, 3), 200, np.uint8) * ring[..., None]

    class Ring:
        def place(self, rng):
            return type("Placed", (), {"masks": ring[None], "canvases": canvases, "objects": [(0, ring, "ring")]})

    source = Source(steel.tiles("base"), Ring(), ("ring",))
    path = write_augmented(tmp_path / "set", source, BASELINES["copy_paste"], 1, 0, {})
    entry = json.loads(path.read_text())["annotations"][0]
    assert entry["area"] == 20 * 20 - 10 * 10 and entry["bbox"] == [10, 10, 20, 20]
    assert (coco_mask.decode(entry["segmentation"]) == ring).all()


def test_sets_that_do_not_fit_together_are_refused(steel, tmp_path):
    real, paint = LineSet(steel.root / "train"), BASELINES["copy_paste"]
    other = tuple(reversed(steel.classes))
    with pytest.raises(UserError, match="not those of the objects"):
        write_augmented(tmp_path / "set", _source(steel, other), paint, 1, 0, {}, real)
    assert not (tmp_path / "set").exists()


def _like(steel, clean=0.0):
    stores = [ObjectStore(steel.objects(number)) for number in range(len(steel.classes))]
    like = RealObjects(LineSet(steel.root / "train"))
    return Source(steel.tiles("base"), Placer(stores, steel.tile, augment=False), steel.classes, like, clean)


def test_a_set_follows_the_real_one_picture_by_picture(steel, tmp_path):
    lines = LineSet(steel.root / "train")
    real = [lines.regions(record) for record in lines.store]
    held = [regions for regions in real if regions]
    source = _like(steel)
    assert source.like.clean == pytest.approx(1 - len(held) / len(real)) and 0.2 < source.like.clean < 0.9
    source = _like(steel, source.like.clean)
    path = write_augmented(tmp_path / "set", source, BASELINES["copy_paste"], 90, 3, {})
    content = json.loads(path.read_text())
    objects = {image["id"]: [] for image in content["images"]}
    for entry in content["annotations"]:
        objects[entry["image_id"]].append((entry["category_id"] - 1, entry["area"]))
    made = [found for found in objects.values() if found]
    assert content["info"]["clean_images"] == 90 - len(made) == int(90 * source.like.clean)
    # not turned here, so that each picture has the very objects of a real one, unless there was no room for one
    sets = [sorted((region.label, region.area) for region in regions) for regions in held]
    whole = sum(sorted(found) in sets for found in made)
    assert whole >= 0.85 * len(made) > 0
    assert all(any(set(found) <= set(other) for other in sets) for found in made)
    for value in (len, lambda found: sum(area for _, area in found)):
        expected, deviation = np.mean([value(one) for one in sets]), np.std([value(one) for one in sets])
        assert abs(np.mean([value(found) for found in made]) - expected) < 4 * deviation / len(made) ** 0.5


def test_objects_of_a_class_are_counted(steel, tmp_path):
    path = write_augmented(tmp_path / "set", _like(steel, 0.25), BASELINES["copy_paste"], {2: 9, 1: 2}, 3, {})
    content = json.loads(path.read_text())
    labels = np.bincount([entry["category_id"] - 1 for entry in content["annotations"]], minlength=4)
    info = content["info"]
    assert labels.tolist() == [0, 2, 9, 0] == [info["objects"][name] for name in steel.classes]
    assert info["clean_images"] == int(0.25 * info["images"]) > 0
    for words, found in ((["12"], 12), (["Crack=3", "a=2=4"], {1: 3, 0: 4})):
        assert _count(words, ("a=2", "crack")) == found
    for words in (["0"], ["crack=0"], ["x=3"], ["5", "crack=2"], ["crack=1", "crack=2"], ["crack="], ["-3"]):
        with pytest.raises(UserError, match="--count"):
            _count(words, ("dent", "crack"))
    with pytest.raises(UserError, match="No training tile has an object of class 1; choose another"):
        write_augmented(tmp_path / "none", _like(steel), BASELINES["copy_paste"], {2: 9, 0: 2}, 3, {})
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match="--clean below 1"):
        write_augmented(tmp_path / "none", _like(steel, 1.0), BASELINES["copy_paste"], {2: 9}, 3, {})


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt, ValueError])
def test_an_error_leaves_nothing_behind(steel, tmp_path, error):
    def stumble(*_):
        raise error("x")

    with pytest.raises(error):
        write_augmented(tmp_path / "set", _source(steel), stumble, 3, 0, {})
    assert not list(tmp_path.iterdir())


def test_pictures_of_any_size_are_painted_on(steel, tmp_path):
    (tmp_path / "bases").mkdir()
    sizes = {"wide": (70, 150), "small": (30, 40)}
    for name, size in sizes.items():
        write_png(tmp_path / f"bases/{name}.png", np.full((*size, 3), 120, np.uint8))
    source = replace(_like(steel), bases=sorted((tmp_path / "bases").iterdir()))
    path = write_augmented(tmp_path / "set", source, BASELINES["copy_paste"], 12, 0, {})
    records = load_coco_json(str(path), str(path.parent / "images"))
    assert {(record["height"], record["width"]) for record in records} == set(sizes.values())
    for record in records:
        union = np.any([coco_mask.decode(entry["segmentation"]) for entry in record["annotations"]], axis=0)
        assert ((read_rgb(record["file_name"]) != 120).any(2) <= union).all() and union.any()
