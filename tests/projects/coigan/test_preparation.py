"""Preparation: its stages, the tiles, the cut-outs and their statistics."""

import json
import shutil
from dataclasses import replace

import inpaint
import numpy as np
import pytest
from coigan.data.convert import convert
from coigan.data.images import write_png
from coigan.data.line_sets import LineSet
from coigan.data.objects import brief, measure
from coigan.data.prepare import PrepareOptions, prepare
from coigan.data.sources import open_source
from coigan.data.stages import open_prepared
from coigan.data.toy import write_toy_steel
from coigan_steel import OPTIONS
from detectron2.data.datasets.coco import load_coco_json
from pycocotools import mask as coco_mask

from gan_plugin.data.parallel import parallel_map
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError


def test_tiles_carry_exactly_what_the_sheets_have(steel):
    for kind in ("train", "test"):
        whole = LineSet(steel / "split" / kind)
        sheets = {record["img"].split(".")[0]: record for record in whole.store}
        tiles = LineSet(steel / kind)
        for record in tiles.store:
            name, y, x = record["img"].removesuffix(".png").split("_")
            x, y = int(x), int(y)
            sheet = sheets[name]
            pixels = whole.image(sheet)[y : y + 64, x : x + 64]
            assert (tiles.image(record) == pixels).all()
            expected, found = np.zeros((2, 4, 64, 64), bool)
            for region in whole.regions(sheet):
                expected[region.label] |= region.painted(96, 200)[y : y + 64, x : x + 64]
            for region in tiles.regions(record):
                found[region.label] |= region.painted(64, 64)
            assert (expected == found).all()


def test_base_tiles_have_no_defect_and_only_the_test_part_keeps_black_ones(steel):
    train = {record["img"]: record for record in LineSet(steel / "train").store}
    base = {record["img"] for record in LineSet(steel / "base").store}
    assert base == {name for name, record in train.items() if not record["polygons"]}
    black = {kind: [_black(p) for p in open_prepared(steel).tiles(kind)] for kind in ("base", "train", "test")}
    assert max(black["base"]) <= 0.1 and max(black["train"]) <= 0.1 < max(black["test"])
    # 8 sheets of 2 x 4 tiles
    assert len(black["test"]) == 64


def test_the_tiles_that_are_too_black_to_train_on_are_counted(steel, tmp_path):
    whole = LineSet(steel / "split" / "train")
    sheets = [whole.image(record) for record in whole.store]
    tiles = [sheet[y : y + 64, x : x + 64].mean(2) for sheet in sheets for y in (0, 32) for x in (0, 45, 90, 136)]
    # a grey value that some of them are under with more than a tenth, and others are not
    black = int(np.median([np.percentile(tile, 10) for tile in tiles]))
    dark = sum((tile < black).mean() > 0.1 for tile in tiles)
    content = prepare("toy", shutil.copytree(steel, tmp_path / "steel"), replace(OPTIONS, black=black))
    assert 0 < dark < len(tiles) == 64
    assert (content["left_out_as_black"], content["tiles"]["train"]) == (dark, 64 - dark)


def _black(path):
    return (read_rgb(path).mean(2) < 10).mean()


def test_detectron2_reads_the_annotations_of_tiles(steel):
    records = load_coco_json(str(steel / "train/annotations.json"), str(steel / "train"), "coigan_test_tiles")
    masks = {record["img"]: record for record in LineSet(steel / "train").store}
    assert len(records) == len(masks) and sum(len(r["annotations"]) for r in records) > 5
    for record in records:
        theirs = sum(int(coco_mask.decode(a["segmentation"]).sum()) for a in record["annotations"])
        own = masks[record["file_name"].rsplit("/", 1)[1]]
        assert theirs == sum(region.area for region in LineSet(steel / "train").regions(own))


def test_every_training_object_becomes_a_cut_out(steel):
    report = json.loads((steel / "split/train/reports/brief_report.json").read_text())
    stored = [len(list((steel / f"objects/{label}/data").glob("*.png"))) for label in range(4)]
    assert stored == [entry["objects"] for entry in report["classes"].values()] and sum(stored) > 5


def test_statistics_of_a_case_worked_by_hand(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    one, two = np.zeros((2, 10, 12), np.uint8)
    one[2:5, 1:7] = 255  # 18 pixels, twice as wide as high
    one[8, 11] = 255
    for name, mask in (("a", one), ("b", two)):
        write_png(tmp_path / f"images/{name}.png", np.zeros((10, 12, 3), np.uint8))
        write_png(tmp_path / f"masks/{name}.png", mask)
    out = tmp_path / "out"
    convert(open_source(tmp_path), out, workers=1)
    report = brief(measure(LineSet(out)), ("defect",))
    assert (report["images_with_objects"], report["images_without_objects"], report["objects"]) == (1, 1, 2)
    own = report["classes"]["defect"]
    assert own["area"] == 19 and own["area_per_object"]["max"] == 18 and own["aspect_per_object"]["max"] == 2.0
    assert report["objects_per_image"]["mean"] == 1.0


def test_stages_are_kept_rebuilt_when_damaged_or_changed_and_forced(steel, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(steel, out)

    def states(options=OPTIONS, force=()):
        return prepare("toy", out, options, force)["stages"]

    assert set(states().values()) == {"kept"}
    victim = next((out / "base").glob("*.png"))
    victim.unlink()
    line = out / "objects/2/dataset.jsonl"
    line.write_bytes(line.read_bytes().replace(b'"2"', b'"3"'))
    found = states()
    assert {name for name, state in found.items() if state == "damaged"} == {"objects", "base"} and victim.is_file()
    found = states(force=("convert",))
    assert found["convert"] == "forced" and found["get"] == "kept"
    found = states(PrepareOptions(**{**OPTIONS.__dict__, "tile": 48}))
    assert found["objects"] == "kept" and found["base"].startswith("settings") and open_prepared(out).tile == 48


def test_a_folder_called_toy_is_told_from_toy_steel(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--toy-count", "8", "--toy-size", "64x136", "--tile", "64", "--workers", "1"]
    inpaint.main(["prepare", "toy", "made", *options])
    shutil.copytree("made/source", "toy")
    with pytest.raises(UserError, match="write ./toy for that one"):
        inpaint.main(["prepare", "toy", "other", *options])
    inpaint.main(["prepare", "./toy", "own", "--tile", "64", "--workers", "1"])
    assert open_prepared("own").tiles("base") and len(LineSet("own/converted")) == len(LineSet("made/converted"))
    for line in ("prepare toy other --toy-size 64", "derive toy other --size 64x"):
        with pytest.raises(SystemExit):
            inpaint.main(line.split())
        assert "is no size; write HEIGHTxWIDTH" in capsys.readouterr().err


def test_other_files_are_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        prepare("toy", tmp_path, OPTIONS)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def _fail_at_three(number):
    if number == 3:
        raise ValueError("three")
    return number * number


def test_parallel_results_come_in_order_and_errors_come_through():
    assert list(parallel_map(abs, range(-40, 0), 2)) == list(range(40, 0, -1))
    with pytest.raises(ValueError, match="three"):
        list(parallel_map(_fail_at_three, range(9), 2))


def test_toy_steel_is_as_unbalanced_as_severstal_and_repeatable(tmp_path):
    write_toy_steel(tmp_path / "a", 60, seed=4, size=(128, 256))
    write_toy_steel(tmp_path / "b", 3, seed=4, size=(128, 256))
    for name in ("000000.jpg", "000002.jpg"):
        assert (tmp_path / "a/train_images" / name).read_bytes() == (tmp_path / "b/train_images" / name).read_bytes()
    rows = [line.split(",") for line in (tmp_path / "a/train.csv").read_text().splitlines()[1:]]
    labels = np.bincount([int(row[1]) for row in rows], minlength=5)
    assert labels[3] > labels[[1, 2, 4]].max() and 0.3 < len({row[0] for row in rows}) / 60 < 0.75
    assert not write_toy_steel(tmp_path / "a", 60, seed=4, size=(128, 256))
    with pytest.raises(UserError, match="other files"):
        write_toy_steel(tmp_path / "a", 61, seed=4, size=(128, 256))
