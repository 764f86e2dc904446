"""Preparation from every format: nothing is lost, changed or passed over."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from coigan.data.convert import convert
from coigan.data.images import write_png
from coigan.data.line_sets import LineSet, coco_content
from coigan.data.prepare import PrepareOptions, prepare
from coigan.data.regions import decode_runs
from coigan.data.sources import open_source
from coigan_steel import OPTIONS, class_masks
from PIL import Image

from gan_plugin.data.pictures import read_rgb
from gan_plugin.data.toy_cityscapes import write_toy_cityscapes
from gan_plugin.errors import UserError


def test_a_zip_is_the_same_as_its_folder_and_a_broken_one_a_sentence(steel, tmp_path):
    archive = tmp_path / "steel.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (steel / "source").rglob("*"):
            file.write(path, path.relative_to(steel / "source"))
    prepare(archive, tmp_path / "out", OPTIONS)
    assert (tmp_path / "out/train/dataset.jsonl").read_bytes() == (steel / "train/dataset.jsonl").read_bytes()
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(UserError, match="no whole zip"):
        prepare(archive, tmp_path / "other", OPTIONS)


def test_a_folder_named_as_a_source_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").mkdir()
    with pytest.raises(UserError, match="made-up steel, and there is a toy here as well; write ./toy for that one"):
        prepare("toy", tmp_path / "out", OPTIONS)


def test_kaggle_is_asked_by_its_command_line(steel, tmp_path, monkeypatch):
    archive = shutil.make_archive(str(tmp_path / "made"), "zip", steel / "source")
    program = tmp_path / "bin/kaggle"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncp {archive} "$6/severstal-steel-defect-detection.zip"\n')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UserError, match="is not installed"):
        prepare("kaggle", tmp_path / "none", OPTIONS)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    content = prepare("kaggle", tmp_path / "out", OPTIONS)
    assert content["images"] == {"train": 8, "test": 8}


def _copied(steel, tmp_path):
    shutil.copytree(steel / "source", tmp_path / "raw")
    return tmp_path / "raw"


@pytest.mark.parametrize("workers", [1, 2])
def test_no_sample_is_lost_silently(steel, tmp_path, workers):
    raw = _copied(steel, tmp_path)
    (raw / "train_images/000003.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="000003.jpg: the image cannot be decoded"):
        prepare(raw, tmp_path / "out", PrepareOptions(tile=64, workers=workers))
    assert not (tmp_path / "out/converted").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("000000.jpg,1,5 3 1", "odd|pairs"),
        ("000000.jpg,1,19199 9", "leaves the image"),
        ("nobody.jpg,1,5 3", "not in"),
        ("000000.jpg,zero,5 3", "whole number"),
    ],
)
def test_a_bad_line_of_the_table_is_named(steel, tmp_path, line, words):
    raw = _copied(steel, tmp_path)
    table = raw / "train.csv"
    count = len(table.read_text().splitlines())
    table.write_text(table.read_text().rstrip() + f"\n{line}\n")
    with pytest.raises(UserError, match=rf"train.csv, line {count + 1}: .*({words})"):
        prepare(raw, tmp_path / "out", PrepareOptions(tile=64, workers=1))


def test_masks_are_those_of_the_table_and_classes_come_in_the_order_asked_for(steel, tmp_path):
    source = open_source(steel / "source")
    rows = [line.split(",") for line in (steel / "source/train.csv").read_text().splitlines()[1:]]
    table = {(name, int(label) - 1): decode_runs(text, 96, 200) for name, label, text in rows}
    found = {}
    for number, image in enumerate(source.images):
        for region in source.regions(number, 96, 200):
            key = image.name, region.label
            found[key] = found.get(key, False) | region.painted(96, 200)
    assert found.keys() == table.keys() and all((found[key] == table[key]).all() for key in table)
    convert(source, tmp_path / "turned", ("3", "1"), workers=1)
    turned = LineSet(tmp_path / "turned")
    seen = {label for _, label in table}
    for record in turned.store:
        masks = class_masks(turned.regions(record), 2, 96, 200)
        for channel, label in enumerate((2, 0)):
            assert (masks[channel] == table.get((record["img"], label), False)).all()
    assert {2, 0} <= seen


def test_colours_stay_red_green_blue_on_every_way(tmp_path):
    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    (raw / "masks").mkdir()
    pixels = np.zeros((32, 32, 3), np.uint8) + np.array([200, 100, 50], np.uint8)
    for number in range(4):
        mask = np.zeros((32, 32), np.uint8)
        mask[3:9, 4:9] = 255
        write_png(raw / f"images/{number}.png", pixels)
        write_png(raw / f"masks/{number}.png", mask)
    prepare(raw, tmp_path / "out", PrepareOptions(tile=16, workers=1))
    pictures = [path for path in (tmp_path / "out").rglob("*.png") if "converted" not in path.parts]
    assert {path.parent.name for path in pictures} == {"base", "train", "test", "data"}
    for path in pictures:
        assert (read_rgb(path) == [200, 100, 50]).all()


def test_coco_goes_in_and_comes_out_the_same(steel, tmp_path):
    before = LineSet(steel / "converted")
    (tmp_path / "all.json").write_text(json.dumps(coco_content(before)))
    images = str(steel / "converted/data")
    options = PrepareOptions(tile=64, workers=1, encoding="polygons", images=images)
    prepare(tmp_path / "all.json", tmp_path / "out", options)
    after = LineSet(tmp_path / "out/converted")
    assert after.classes == ("1", "2", "3", "4") and len(after) == len(before)
    for one, two in zip(sorted(before.store, key=lambda r: r["img"]), after.store, strict=True):
        for first, second in zip(before.regions(one), after.regions(two), strict=True):
            assert first.label == second.label and first.box == second.box and (first.mask == second.mask).all()
    report = json.loads((tmp_path / "out/converted/conversion.json").read_text())
    assert report["wrong_pixels"] == 0 < report["mask_pixels"]


def test_thinned_polygons_report_what_they_lose(steel, tmp_path):
    options = PrepareOptions(tile=64, workers=1, encoding="polygons", keep_every=4)
    prepare(steel / "source", tmp_path / "out", options)
    report = json.loads((tmp_path / "out/converted/conversion.json").read_text())
    lost = sum(
        int((_painted(one) ^ _painted(two)).sum())
        for one, two in zip(_regions(steel / "converted"), _regions(tmp_path / "out/converted"), strict=True)
    )
    assert report["wrong_pixels"] == lost > 0
    assert report["approximation_error"] == pytest.approx(lost / report["mask_pixels"])


def _regions(folder):
    lines = LineSet(folder)
    return [region for record in lines.store for region in lines.regions(record)]


def _painted(region):
    return region.painted(96, 200)


def test_cityscapes_objects_are_its_instances(tmp_path):
    write_toy_cityscapes(tmp_path, 2, 1, seed=1, size=(256, 128))
    source = open_source(tmp_path / "cityscapes")
    assert source.classes == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    for number, image in enumerate(source.images):
        truth = str(image).replace("leftImg8bit/", "gtFine/", 1).replace("_leftImg8bit", "_gtFine_instanceIds")
        ids = np.asarray(Image.open(truth))
        expected = {24: 0, 25: 1, 26: 2, 27: 3, 28: 4, 31: 5, 32: 6, 33: 7}
        wanted = sorted((expected[v // 1000], int((ids == v).sum())) for v in np.unique(ids) if v // 1000 in expected)
        found = source.regions(number, 128, 256)
        assert sorted((region.label, region.area) for region in found) == wanted and wanted
