"""Composed sets: their truth, their files, and who reads them."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from car_gan.compose.compose import compose_defaults
from car_gan.compose.samples import SampleBank
from car_gan.crops.dataset import CropDataset
from car_gan.pictures import GREEN
from car_gan.scenes.cityscapes import Cityscapes
from car_gan.scenes.sources import CropFolder
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image
from pycocotools.coco import COCO


@pytest.fixture(scope="module")
def composed(toy, toy_crops, tmp_path_factory):
    import cars

    out = tmp_path_factory.mktemp("composed") / "out"
    cars.main(command(toy, toy_crops, out))
    return out


def command(toy, crops, out, *options):
    fixed = ("MIX", "0.7", "PLACE.MAX_ENLARGE", "9.0", "PLACE.MIN_HEIGHT", "5", "CARS", "(2,4)")
    return [str(a) for a in ("compose", "--cityscapes", toy, "--samples", crops, "--output", out, *fixed, *options)]


def test_every_annotation_is_its_mask(composed, toy):
    """pycocotools rasterises each; those of a scene share no pixel; only the pasted ones are new."""
    coco, source = COCO(str(composed / "annotations.json")), Cityscapes(toy, ["train"])
    files = {file.name: file for file in source.files()}
    assert len(coco.imgs) == len(files) == 32
    new = 0
    for image in coco.imgs.values():
        scene = source.load(files[image["source_image"]])
        taken = np.zeros(scene.shape, int)
        pasted = np.zeros(scene.shape, bool)
        for annotation in coco.imgToAnns[image["id"]]:
            mask = coco.annToMask(annotation).astype(bool)
            assert mask.sum() == annotation["area"] > 0
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert annotation["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
            taken += mask
            if annotation["synthetic"]:
                pasted |= mask
                new += 1
                assert coco.cats[annotation["category_id"]]["name"] == "car" and not annotation["iscrowd"]
        assert taken.max() <= 1
        # what was annotated before is what it was, but for the pixels of the new cars and of what stands nearer
        before = Counter(t.label for t in scene.objects if t.label in source.categories.values() and t.area)
        after = Counter(coco.cats[a["category_id"]]["name"] for a in coco.imgToAnns[image["id"]] if not a["synthetic"])
        assert all(after[label] <= count for label, count in before.items()) and after.keys() <= before.keys()
        old = np.zeros(scene.shape, bool)
        for thing in scene.objects:
            if thing.label in source.categories.values():
                old |= thing.full_mask(scene.shape)
        assert np.array_equal(taken > 0, old | pasted)
        same = np.asarray(Image.open(files[image["source_image"]].image).convert("RGB"))
        picture = np.asarray(Image.open(composed / image["file_name"]).convert("RGB"))
        assert picture.shape == same.shape and np.array_equal(picture, same) == (image["synthetic"] == 0)
    summary = json.loads((composed / "summary.json").read_text())
    provenance = [json.loads(line) for line in (composed / "provenance.jsonl").read_text().splitlines()]
    assert new == summary["synthetic"] == len(provenance) > 3
    assert summary["composed"] == len({line["scene"] for line in provenance}) <= 10
    assert all((composed / "images").iterdir()) and "toy" in (composed / "LICENCE_NOTE.txt").read_text()


@pytest.mark.parametrize("form", ["polygon", "rle"])
def test_detectron2_loads_it(composed, toy, toy_crops, tmp_path, cli, form):
    out = composed
    if form == "rle":
        out = tmp_path / "rle"
        assert cli(*command(toy, toy_crops, out, "SEGMENTATION", "rle")) == 0
    name = f"composed_{form}"
    register_coco_instances(name, {}, str(out / "annotations.json"), str(out))
    try:
        records = DatasetCatalog.get(name)
        content = json.loads((out / "annotations.json").read_text())
        assert [len(r["annotations"]) for r in records] == [
            sum(a["image_id"] == image["id"] for a in content["annotations"]) for image in content["images"]
        ]
        classes = MetadataCatalog.get(name).thing_classes
        assert classes == ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
        areas = {a["area"] for a in content["annotations"]}
        first = json.loads((composed / "annotations.json").read_text())
        assert areas == {a["area"] for a in first["annotations"]}
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_interrupted_or_in_parallel_it_is_the_same(composed, toy, toy_crops, tmp_path, cli):
    cut, parallel = tmp_path / "cut", tmp_path / "parallel"
    assert cli(*command(toy, toy_crops, parallel), "--workers", "2") == 0
    shutil.copytree(composed, cut)
    journal = (composed / "progress.jsonl").read_bytes().split(b"\n")
    (cut / "progress.jsonl").write_bytes(b"\n".join([*journal[:3], journal[3][:99]]))
    for line in journal[3:-1]:
        (cut / json.loads(line)["image"]["file_name"]).unlink()
    assert cli(*command(toy, toy_crops, cut)) == 0
    for other in (cut, parallel):
        for name in ("annotations.json", "provenance.jsonl", "summary.json"):
            assert (other / name).read_bytes() == (composed / name).read_bytes()
        for picture in (composed / "images").iterdir():
            assert (other / "images" / picture.name).read_bytes() == picture.read_bytes()


def test_a_generators_tensor_does_as_well(toy, toy_crops, tmp_path, cli):
    crops = CropDataset(toy_crops, 64, split="all")
    torch.save(torch.stack([crops[index] for index in range(8)]), tmp_path / "samples.pt")
    assert cli(*command(toy, tmp_path / "samples.pt", tmp_path / "out")) == 0
    line = json.loads((tmp_path / "out/provenance.jsonl").read_text().splitlines()[0])
    assert line["sample"].startswith("samples.pt[")


def test_a_composed_set_is_a_source_again(composed, toy_crops, tmp_path, cli):
    """COCO in, COCO out: the cars of the first round are annotated cars of the second."""
    first = json.loads((composed / "annotations.json").read_text())
    arguments = command("", toy_crops, tmp_path / "out")
    arguments[1:3] = ["--coco", str(composed / "annotations.json"), str(composed)]
    assert cli(*arguments) == 0
    second = json.loads((tmp_path / "out/annotations.json").read_text())
    assert second["categories"] == first["categories"]
    assert sum(a["synthetic"] for a in second["annotations"]) > 0
    assert COCO(str(tmp_path / "out/annotations.json")).imgs.keys() == {i["id"] for i in first["images"]}


def test_the_key_is_what_is_noted_beside_the_samples(tmp_path):
    blue, options = (20, 20, 240), compose_defaults().MATTING
    (tmp_path / "new/cars").mkdir(parents=True)
    picture = np.full((16, 16, 3), blue, np.uint8)
    picture[4:12, 2:14] = (90, 140, 60)
    Image.fromarray(picture).save(tmp_path / "new/cars/car_0_000000.png")
    assert SampleBank(tmp_path / "new/cars", options).key == GREEN
    (tmp_path / "new/samples.json").write_text(json.dumps({"key": blue}))
    bank = SampleBank(tmp_path / "new/cars", options)
    sprite = bank.sprite(0)
    assert bank.key == blue and sprite.alpha.shape == (8, 12) and np.allclose(sprite.colours, (90, 140, 60), atol=1)
    (source,) = (CropFolder(tmp_path / "new/cars", "car", GREEN),)
    assert source.load(source.files()[0]).objects[0].box == (2, 4, 14, 12)
    options.KEY = (9, 9, 200)
    assert SampleBank(tmp_path / "new/cars", options).key == (9, 9, 200)


@pytest.mark.parametrize(
    "options, sentence",
    [
        (("MIX", "1.5"), "MIX is 1.5; set it to a share"),
        (("CARS", "(3, 1)"), "CARS is (3, 1); set it to the fewest and the most"),
        (("SEGMENTATION", "png"), "SEGMENTATION is 'png', which is unknown; the known ones are 'polygon', 'rle'"),
        (("CATEGORY", "boat"), "The scenes have no class 'boat'; set CATEGORY to one of these: person, rider, car"),
        (("CATEGORY", "train"), "too few to learn their size from"),
        (("MATTING.LOW", "0.9", "MATTING.HIGH", "0.5"), "must rise from 0 to 1"),
        (("PLACE.MIN_HEIGHT", "999"), "No car found a place in 32 scenes"),
        (("MATTING.MIN_COVER", "0.99", "MATTING.MAX_COVER", "1.0"), "there was no car in the sample"),
    ],
)
def test_what_is_wrong_is_a_sentence(toy, toy_crops, tmp_path, cli, capsys, options, sentence):
    assert cli(*command(toy, toy_crops, tmp_path / "out", *options)) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, sentence",
    [
        (torch.zeros(2, 5, 8, 8), "are not a tensor (N, 3 or 4, H, W)"),
        (torch.zeros(2, 3, 0, 8), "are not a tensor (N, 3 or 4, H, W)"),
        (torch.full((2, 3, 8, 8), 7.0), "are not finite values from -1 to 1"),
        ({"samples": 1}, "are not a tensor"),
    ],
)
def test_samples_of_another_form(toy, tmp_path, cli, capsys, content, sentence):
    torch.save(content, tmp_path / "samples.pt")
    assert cli(*command(toy, tmp_path / "samples.pt", tmp_path / "out")) == 2
    assert sentence in capsys.readouterr().err
