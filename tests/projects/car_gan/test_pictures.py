"""Folders in which each picture shows one car."""

import json

import numpy as np
import pytest
from car_gan.pictures import GREEN
from car_gan.scenes.sources import CropFolder, StanfordCars
from PIL import Image
from scipy import io

from gan_plugin.errors import UserError


def noise(height, width, channels=3):
    return np.random.default_rng(height).integers(60, 200, (height, width, channels), np.uint8)


def test_the_car_is_what_is_not_ground(tmp_path):
    photograph, on_green, transparent = noise(8, 9), noise(10, 12), noise(7, 11, 4)
    on_green[:, :5] = GREEN
    transparent[..., 3] = 0
    transparent[2:5, 3:8, 3] = 255
    (tmp_path / "a").mkdir()
    for name, pixels in (("a/photo.png", photograph), ("green.png", on_green), ("clear.png", transparent)):
        Image.fromarray(pixels).save(tmp_path / name)
    source = CropFolder(tmp_path, "car", GREEN)
    found = {file.name: (file.city, source.load(file).objects[0].box) for file in source.files()}
    assert found == {
        "a/photo.png": ("a", (0, 0, 9, 8)),
        "clear.png": ("", (3, 2, 8, 5)),
        "green.png": ("", (5, 0, 12, 10)),
    }


@pytest.fixture
def stanford(tmp_path):
    """Four photographs of two models, as the official archives have them: boxes from 1, both ends in the box."""
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    rows = [(2, 3, 11, 8, 2, "00001.jpg"), (1, 1, 20, 12, 1, "00002.jpg"), (50, 50, 60, 60, 1, "00003.jpg")]
    rows += [(9, 4, 8, 7, 1, "00004.jpg")]
    annotations = np.array(rows, dtype=[(name, object) for name in fields])
    for folder in ("cars_train", "devkit"):
        (tmp_path / folder).mkdir()
    io.savemat(tmp_path / "devkit/cars_train_annos.mat", {"annotations": annotations})
    io.savemat(tmp_path / "devkit/cars_meta.mat", {"class_names": np.array(["AM General Hummer", "Audi S4"], object)})
    for _, _, _, _, _, name in rows:
        Image.fromarray(noise(12, 20)).save(tmp_path / "cars_train" / name, quality=95)
    return tmp_path


def test_stanford_cars(stanford, tmp_path, cli, capsys):
    options = ("MODE", "context", "BOX", "truth", "DETECTOR.CONFIG", "")
    assert cli("build", "--stanford", stanford, "--output", tmp_path / "out", *options) == 2
    assert "00003.jpg lies outside of the picture" in capsys.readouterr().err
    source = StanfordCars(stanford)
    assert [source.load(file).broken for file in source.files()][3][0][1].endswith("00004.jpg has no area.")
    assert cli("build", "--stanford", stanford, "--output", tmp_path / "out3", *options, "CATEGORY", "truck") == 2
    assert "no class 'truck'; set CATEGORY to one of these: car." in capsys.readouterr().err
    out = tmp_path / "out2"
    assert cli("build", "--stanford", stanford, "--output", out, *options, "SKIP_BROKEN", "True") == 0
    records = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [(r["city"], r["box_truth"]) for r in records] == [
        ("Audi S4", [1.0, 2.0, 11.0, 8.0]),
        ("AM General Hummer", [0.0, 0.0, 20.0, 12.0]),
    ]
    whole = np.asarray(Image.open(stanford / "cars_train/00001.jpg"))
    assert np.array_equal(np.asarray(Image.open(out / records[0]["file"])), whole[2:8, 1:11])
    assert "research" in records[0]["licence"]


def test_what_is_missing_is_said(stanford, tmp_path):
    (stanford / "devkit/cars_train_annos.mat").write_bytes(b"no")
    with pytest.raises(UserError, match="cars_train_annos.mat cannot be read"):
        StanfordCars(stanford)
    (stanford / "devkit/cars_train_annos.mat").unlink()
    with pytest.raises(UserError, match="has no cars_train_annos.mat; unpack car_devkit.tgz"):
        StanfordCars(stanford)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither cars_train nor cars_test"):
        StanfordCars(tmp_path / "empty")
    with pytest.raises(UserError, match="holds no picture"):
        CropFolder(tmp_path / "empty", "car", GREEN).files()
