"""A synthetic set beside the real one: every mask labelled, every image accounted for."""

import json

import numpy as np
import pytest
from coigan.augmentation import BASELINES, Source, write_augmented
from coigan.data.coco_json import coco_content
from coigan.data.line_sets import LineSet
from coigan.data.objects import ObjectStore
from coigan.data.placer import Placer
from coigan.data.prepare import PrepareOptions, prepare
from coigan.data.prepared import open_prepared
from detectron2.data.datasets.coco import load_coco_json
from pycocotools import mask as coco_mask

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
