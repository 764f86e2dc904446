"""The toy set: official to the byte, the same every time, and telling nothing by colour."""

import importlib.util
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import name2label, trainId2label
from detectron2.data.datasets.cityscapes import load_cityscapes_instances
from PIL import Image, ImageDraw
from support import exit_code

from gan_plugin.data import toy_cityscapes as writer_module
from gan_plugin.data.toy_cityscapes import write_toy_cityscapes
from gan_plugin.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
EVALUATED = {"person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    write_toy_cityscapes(root, train=60, val=20, seed=0, size=(256, 128))
    return root / "cityscapes"


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in Path(root).rglob("*.*") if path.is_file()}


def truths(toy, split="*"):
    return sorted(toy.glob(f"gtFine/{split}/*/*_polygons.json"))


def sibling(path, suffix):
    return np.asarray(Image.open(str(path).replace("_polygons.json", suffix)))


def test_layout_and_encoding_are_official(toy):
    for split, count in (("train", 60), ("val", 20)):
        images = sorted(toy.glob(f"leftImg8bit/{split}/*/*_leftImg8bit.png"))
        assert len(images) == count
        for image in images:
            city, frame = image.parent.name, image.name.removesuffix("_leftImg8bit.png")
            assert frame.startswith(f"{city}_") and len(frame.split("_")) == 3
            truth = toy / "gtFine" / split / city
            assert all(
                (truth / f"{frame}_gtFine_{n}").is_file() for n in ("polygons.json", "labelIds.png", "instanceIds.png")
            )
    cities = {split: {p.name for p in (toy / "gtFine" / split).iterdir()} for split in ("train", "val")}
    assert not cities["train"] & cities["val"]
    image = np.asarray(Image.open(images[0]))
    assert image.shape == (128, 256, 3) and image.dtype == np.uint8
    labels, instances = sibling(truths(toy)[0], "_labelIds.png"), sibling(truths(toy)[0], "_instanceIds.png")
    assert labels.dtype == np.uint8 and instances.dtype == np.uint16 and labels.shape == instances.shape == (128, 256)


def test_label_images_are_the_polygons_painted_in_order(toy):
    """Painted again here with Pillow alone; ids are class * 1000 + number, for groups the class alone."""
    for path in truths(toy)[:20]:
        content = json.loads(path.read_text())
        labels = Image.new("L", (content["imgWidth"], content["imgHeight"]))
        instances, counts = Image.new("I", labels.size), {}
        for item in content["objects"]:
            name, points = item["label"], [tuple(point) for point in item["polygon"]]
            label = name2label.get(name) or name2label[name.removesuffix("group")]
            number = label.id
            if label.hasInstances and name in name2label:
                counts[name] = counts.get(name, -1) + 1
                number = label.id * 1000 + counts[name]
            ImageDraw.Draw(labels).polygon(points, fill=label.id)
            ImageDraw.Draw(instances).polygon(points, fill=number)
        assert np.array_equal(np.asarray(labels), sibling(path, "_labelIds.png"))
        assert np.array_equal(np.asarray(instances), sibling(path, "_instanceIds.png"))


def test_scenes_have_every_class_crowds_groups_and_ignored_regions(toy):
    names = [[item["label"] for item in json.loads(path.read_text())["objects"]] for path in truths(toy)]
    for label in EVALUATED:
        assert sum(label in scene for scene in names) >= len(names) / 5, label
    groups = [label for scene in names for label in scene if label.endswith("group")]
    assert {"persongroup", "cargroup", "bicyclegroup"} == set(groups)
    assert all("ego vehicle" in scene and "out of roi" in scene for scene in names)
    # in the pictures' own encoding: group pixels below 1000, and objects hidden in part by nearer ones
    ids = [sibling(path, "_instanceIds.png") for path in truths(toy)]
    assert any(((image > 23) & (image < 34)).any() for image in ids)
    evaluated_ids = {trainId2label[label.trainId].id for label in map(name2label.get, EVALUATED)}
    assert {int(i) // 1000 for image in ids for i in np.unique(image) if i >= 1000} == evaluated_ids
    heights = [np.ptp(np.nonzero(image == i)[0]) + 1 for image in ids for i in np.unique(image) if i >= 1000]
    assert min(heights) <= 6 and max(heights) >= 60


def test_detectron2_loads_it_from_either_annotation(toy):
    from_json, from_png = (
        load_cityscapes_instances(str(toy / "leftImg8bit/val"), str(toy / "gtFine/val"), from_json, True)
        for from_json in (True, False)
    )
    assert len(from_json) == len(from_png) == 20
    count = lambda records: sum(len(r["annotations"]) for r in records)  # noqa: E731
    assert count(from_png) == count(from_json) > 80


def test_the_same_arguments_give_the_same_bytes_and_more_pictures_change_none(tmp_path, toy):
    write_toy_cityscapes(tmp_path / "again", train=3, val=2, seed=0, size=(256, 128))
    again, whole = files(tmp_path / "again/cityscapes"), files(toy)
    again.pop(Path("toy_cityscapes.json"))
    assert len(again) == 4 * 5
    assert all(whole[name] == content for name, content in again.items())
    write_toy_cityscapes(tmp_path / "other", train=3, val=2, seed=1, size=(256, 128))
    other = files(tmp_path / "other/cityscapes")
    assert not any(other[name] == content for name, content in again.items() if name.suffix == ".png")


def test_colour_does_not_tell_the_class(toy):
    """Classes guessed from an object's colour (mean and spread) by its nearest neighbours, on half of the pictures."""
    features, labels = [], []
    for path in truths(toy):
        image = np.asarray(Image.open(str(path).replace("gtFine", "leftImg8bit").replace("_polygons.json", ".png")))
        ids = sibling(path, "_instanceIds.png")
        for number in np.unique(ids[ids >= 1000]):
            pixels = image[ids == number].astype(float)
            features.append(np.concatenate([pixels.mean(0), pixels.std(0)]))
            labels.append(number // 1000)
    features, labels = np.array(features), np.array(labels)
    features = (features - features.mean(0)) / features.std(0)
    half = len(labels) // 2
    distance = ((features[half:, None] - features[None, :half]) ** 2).sum(-1)
    nearest = labels[:half][np.argsort(distance, axis=1)[:, :15]]
    guessed = np.array([np.bincount(row).argmax() for row in nearest])
    recall = [(guessed[labels[half:] == c] == c).mean() for c in np.unique(labels)]
    assert len(recall) == 8
    assert np.mean(recall) < 1 / 8 + 0.08


@pytest.fixture
def command():
    spec = importlib.util.spec_from_file_location("make_toy", ROOT / "tools/make_toy_cityscapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return partial(exit_code, module.main)


def test_command_writes_once_and_keeps_what_is_there(command, tmp_path, capsys):
    arguments = [tmp_path, "--train", 2, "--val", 1, "--seed", 3, "--size", "128x64"]
    assert command(*arguments) == 0
    before = files(tmp_path)
    assert command(*arguments) == 0
    assert "already there" in capsys.readouterr().out and files(tmp_path) == before
    assert command(*arguments[:-1], "96x64") == 2
    assert "holds another toy set" in capsys.readouterr().err and files(tmp_path) == before


def test_an_interrupted_set_is_not_taken_for_a_whole_one(tmp_path, monkeypatch):
    original = writer_module.write_picture

    def stopped(root, split, index, *rest):
        if index == 1:
            raise KeyboardInterrupt
        original(root, split, index, *rest)

    arguments = {"train": 2, "val": 1, "size": (128, 64)}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("gan_plugin.data.toy_cityscapes.write_picture", stopped)
        write_toy_cityscapes(tmp_path, **arguments)
    assert write_toy_cityscapes(tmp_path, **arguments) is True
    assert len(files(tmp_path)) == 3 * 4 + 1
    assert write_toy_cityscapes(tmp_path, **arguments) is False
    next(tmp_path.rglob("*_labelIds.png")).unlink()
    with pytest.raises(UserError, match="no longer whole .1 files missing"):
        write_toy_cityscapes(tmp_path, **arguments)
    (tmp_path / "cityscapes/toy_cityscapes.json").write_text("{")
    with pytest.raises(UserError, match="holds other files"):
        write_toy_cityscapes(tmp_path, **arguments)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--size", "big"], "WIDTHxHEIGHT"),
        (["--size", "32x32"], "too small"),
        (["--train", -1], "must be 0 or more"),
        (["--train", 0, "--val", 0], "at least one picture"),
    ],
)
def test_bad_arguments_are_sentences(command, tmp_path, capsys, arguments, sentence):
    assert command(tmp_path / "out", *arguments) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "cityscapes").mkdir()
    (tmp_path / "cityscapes/license.txt").write_text("the real set")
    with pytest.raises(UserError, match="maybe the real Cityscapes"):
        write_toy_cityscapes(tmp_path, train=1, val=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_toy_cityscapes(tmp_path / "file", train=1, val=1)
