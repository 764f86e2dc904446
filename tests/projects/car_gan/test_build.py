"""The builder: exact backgrounds, the confidence, the funnel, what was interrupted, what is wrong."""

import json
import shutil
from pathlib import Path

import cars
import numpy as np
import pytest
from car_gan.crops.dataset import CropDataset
from car_gan.pictures import GREEN
from PIL import Image

CONFIGS = Path(cars.__file__).parent / "configs"
OFF = ("BOX", "truth", "DETECTOR.CONFIG", "")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def truth_of(toy, record):
    """The car's mask and the scene, from the files that cityscapesScripts wrote."""
    split, city, stem = record["source_image"].split("/")
    folder = toy / "cityscapes"
    official = np.asarray(Image.open(folder / f"gtFine/{split}/{city}/{stem}_gtFine_instanceIds.png"))
    image = np.asarray(Image.open(folder / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png").convert("RGB"))
    return official == 26000 + record["instance"], image


@pytest.mark.parametrize("mode", ["green_crop", "rgba_crop", "green_full", "rgba_full", "context"])
def test_every_pixel_of_every_mode(cli, toy, tmp_path, mode):
    out = tmp_path / "out"
    assert cli("build", "--cityscapes", toy, "--output", out, *OFF, "MODE", mode, "PAD", 0.1, "SPLITS", "('val',)") == 0
    records = lines(out / "manifest.jsonl")
    assert records
    for record in records:
        mask, image = truth_of(toy, record)
        x0, y0, x1, y1 = map(int, record["box_crop"])
        if mode.endswith("full"):
            x0, y0, x1, y1 = 0, 0, image.shape[1], image.shape[0]
        picture = np.asarray(Image.open(out / record["file"]))
        assert picture.shape == (y1 - y0, x1 - x0, 4 if mode.startswith("rgba") else 3)
        # the scene on a wide green field, which the crop may reach into
        wide = 50
        shown = np.pad(np.ones_like(mask) if mode == "context" else mask, wide)
        field = np.full((*shown.shape, 3), GREEN, np.uint8)
        field[wide:-wide, wide:-wide] = image
        field[~shown] = GREEN
        window = np.s_[y0 + wide : y1 + wide, x0 + wide : x1 + wide]
        assert np.array_equal(picture[..., :3], field[window])
        if picture.shape[2] == 4:
            assert np.array_equal(picture[..., 3], np.where(shown[window], 255, 0))


@pytest.fixture
def scores(toy, tmp_path):
    """Scores that rise by car: undetected, far below, just below, exactly, as 32 bits, above; then always 1."""
    from car_gan.scenes.cityscapes import Cityscapes

    source, recorded = Cityscapes(toy), {}
    values = [None, 0.2, float(np.nextafter(np.float32(0.9), np.float32(0))), 0.9, float(np.float32(0.9)), 0.95]
    for file in source.files():
        for thing in source.load(file).objects:
            if thing.label == "car" and not thing.group and thing.area:
                score = values[len(recorded)] if len(recorded) < len(values) else 1.0
                x0, y0, x1, y1 = thing.box
                box = [x0 - 1.5, y0 - 0.25, x1 + 2.0, y1 + 0.5]
                recorded[f"{file.name}#{thing.number}"] = score and {"box": box, "score": score}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"scores": recorded}))
    return path


def test_ninety_percent_is_enough_and_the_predicted_box_is_cut(cli, toy, scores, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli("build", "--cityscapes", toy, "--output", out, "DETECTOR.RECORDED", scores) == 0
    recorded = json.loads(scores.read_text())["scores"]
    kept = {f"{r['source_image']}#{r['instance']}": r for r in lines(out / "manifest.jsonl")}
    assert list(kept) == list(recorded)[3:]
    assert [kept[key]["detector_score"] for key in list(kept)[:2]] == [0.9, float(np.float32(0.9))]
    for key, record in kept.items():
        x0, y0, x1, y1 = record["box_truth"]
        assert record["box_detected"] == recorded[key]["box"]
        # outward to whole pixels, by hand
        assert record["box_crop"] == [x0 - 2, y0 - 1, x1 + 2, y1 + 1]
        with Image.open(out / record["file"]) as image:
            assert image.size == (x1 - x0 + 4, y1 - y0 + 2)
    funnel = json.loads((out / "funnel.json").read_text())
    gone = [line["reason"] for line in lines(out / "dropped.jsonl")]
    assert gone.count("undetected") == 1 and gone.count("score") == 2
    assert funnel["instances"] == len(kept) + len(gone) == funnel["kept"] + sum(funnel["dropped"].values())
    assert funnel["kept"] == len(kept) == len(list((out / "crops").iterdir()))
    assert f"{len(kept)} crops in" in capsys.readouterr().out
    # what it says it has heard gives the same data set again
    again = tmp_path / "again"
    assert cli("build", "--cityscapes", toy, "--output", again, "DETECTOR.RECORDED", out / "scores.json") == 0
    assert (again / "manifest.jsonl").read_bytes() == (out / "manifest.jsonl").read_bytes()


def contents(folder):
    """Every file but the settings' lock, by name."""
    return {
        p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"
    }


def test_interrupted_or_in_parallel_it_is_the_same_data_set(cli, toy, tmp_path):
    whole, cut, parallel = (tmp_path / name for name in ("whole", "cut", "parallel"))
    arguments = ("build", "--cityscapes", toy, *OFF, "--output")
    assert cli(*arguments, whole) == 0
    assert cli(*arguments, parallel, "--workers", 2) == 0
    shutil.copytree(whole, cut)
    for name in ("manifest.jsonl", "dropped.jsonl", "funnel.json", "review.html"):
        (cut / name).unlink()
    # as a kill leaves it: four scenes and a part of the fifth line; the crops of the others not yet there
    journal = (whole / "progress.jsonl").read_bytes().split(b"\n")
    (cut / "progress.jsonl").write_bytes(b"\n".join([*journal[:4], journal[4][:40]]))
    for line in journal[4:-1]:
        for record in json.loads(line)["kept"]:
            (cut / record["file"]).unlink()
    assert cli(*arguments, cut) == 0
    expected = contents(whole)
    for other in (cut, parallel):
        found = contents(other)
        assert found.keys() == expected.keys()
        differing = [str(name) for name in expected if found[name] != expected[name] and name.name != "review.html"]
        assert not differing
    before = {path: path.stat().st_mtime_ns for path in (whole / "crops").iterdir()}
    assert cli(*arguments, whole) == 0
    assert {path: path.stat().st_mtime_ns for path in (whole / "crops").iterdir()} == before


def test_the_crops_train(toy_crops):
    rgb, rgba = CropDataset(toy_crops, 16, split="all"), CropDataset(toy_crops, 16, channels=4, split="all")
    assert len(rgb) == len(lines(toy_crops / "manifest.jsonl")) > 5
    assert (rgb[0] == rgba[0][:3]).all() and rgba[0][3].min() == -1 and rgba[0][3].max() == 1


def test_provenance_and_quality_are_in_the_manifest(toy_crops, toy):
    for record in lines(toy_crops / "manifest.jsonl"):
        mask, _ = truth_of(toy, record)
        assert record["area"] == mask.sum() and record["visible"] >= 0.5
        assert Path(record["image"]).is_file() and record["city"] == record["source_image"].split("/")[1]
        assert record["filter_version"] == "1" and record["detector_score"] is None
        assert "toy scenes" in record["licence"]


def test_the_review_page_stands_alone_and_what_it_rejects_is_gone(cli, toy_crops, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(toy_crops, out)
    records = lines(out / "manifest.jsonl")
    page = (out / "review.html").read_text()
    assert page.count('type="checkbox"') == len(records) and 'src="crops' not in page
    gone = [records[1]["file"], records[3]["file"]]
    (tmp_path / "rejected.txt").write_text("\n".join(gone) + "\n")
    assert cli("review", out, "--reject", tmp_path / "rejected.txt") == 0
    assert [r["file"] for r in lines(out / "manifest.jsonl")] == [r["file"] for r in records if r["file"] not in gone]
    assert len(CropDataset(out, 8, split="all")) == len(records) - 2
    assert cli("review", out, "--reject", tmp_path / "rejected.txt") == 2
    assert "which the manifest of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, sentence",
    [
        (
            ("MODE", "green"),
            "MODE is 'green', which is unknown; did you mean 'green_full'? The known ones are 'green_crop'",
        ),
        (
            ("BOX", "truth", "DETECTOR.RUN_ON", "crop"),
            "DETECTOR.RUN_ON is 'crop', which is unknown; the known ones are 'green', 'scene'",
        ),
        (("DETECTOR.CONFIG", ""), "BOX is predicted, which takes DETECTOR.CONFIG or DETECTOR.RECORDED"),
        (("KEY", "(1, 2, 300)"), "The key colour (1, 2, 300) is not three whole numbers from 0 to 255"),
        ((*OFF, "CATEGORY", "boat"), "no class 'boat'; set CATEGORY to one of these: person, rider, car"),
        ((*OFF, "FILTER.MIN_SIDE", 9999), "dropped because its box is too small (FILTER.MIN_SIDE)"),
        (("MOOD", "x"), "config options are wrong"),
        (("DETECTOR.CONFIG", "no.yaml"), "DETECTOR.CONFIG no.yaml is neither a file nor in Detectron2's model zoo"),
        (("DETECTOR.RECORDED", "no.json"), "The recorded scores no.json cannot be read"),
    ],
)
def test_what_is_wrong_is_a_sentence(cli, toy, tmp_path, capsys, options, sentence):
    assert cli("build", "--cityscapes", toy, "--output", tmp_path / "out", *options) == 2
    assert sentence in capsys.readouterr().err


def test_another_builds_folder_is_refused(cli, toy, toy_crops, tmp_path, capsys):
    assert cli("build", "--cityscapes", toy, "--output", toy_crops, *OFF) == 2
    said = capsys.readouterr().err
    assert "was begun with " in said and "repeat that, or choose another --output" in said
    (tmp_path / "mine.txt").touch()
    assert cli("build", "--cityscapes", toy, "--output", tmp_path, *OFF) == 2
    assert "holds other files (mine.txt)" in capsys.readouterr().err


def test_broken_pictures_and_polygons(cli, toy, tmp_path, capsys):
    shutil.copytree(toy / "cityscapes", tmp_path / "cityscapes")
    record = json.loads((tmp_path / "cityscapes/toy_cityscapes.json").read_text())
    assert record["train"] == 32
    arguments = ("build", "--cityscapes", tmp_path, "--output", tmp_path / "out", *OFF)
    truth = sorted((tmp_path / "cityscapes/gtFine").rglob("*_polygons.json"))[2]
    content = json.loads(truth.read_text())
    content["objects"].append({"label": "car", "polygon": [[0, 0], [9, 9]]})
    truth.write_text(json.dumps(content))
    assert cli(*arguments) == 2
    said = capsys.readouterr().err
    assert truth.name in said and "fewer than three points" in said and "with SKIP_BROKEN True" in said
    assert cli(*arguments[:3], "--output", tmp_path / "skipped", *OFF, "SKIP_BROKEN", "True") == 0
    assert json.loads((tmp_path / "skipped/funnel.json").read_text())["dropped"]["broken"] == 1
    kept = lines(tmp_path / "skipped/manifest.jsonl")
    image = Path(kept[-1]["image"])
    image.write_bytes(image.read_bytes()[:200])
    assert cli(*arguments[:3], "--output", tmp_path / "third", *OFF, "SKIP_BROKEN", "True") == 2
    assert f"{image.name}: the image cannot be decoded" in capsys.readouterr().err
    # nothing of what was finished is lost
    assert len(list((tmp_path / "third/crops").iterdir())) > 0


def test_the_test_splits_dummy_truth_is_a_warning(cli, toy, tmp_path, caplog):
    shutil.copytree(toy / "cityscapes", tmp_path / "cityscapes")
    for part, suffix in (("leftImg8bit", "_leftImg8bit.png"), ("gtFine", "_gtFine_polygons.json")):
        source = sorted((tmp_path / "cityscapes" / part / "val").rglob(f"*{suffix}"))[0]
        target = tmp_path / "cityscapes" / part / "test" / source.parent.name
        target.mkdir(parents=True)
        shutil.copy(source, target)
    (dummy,) = (tmp_path / "cityscapes/gtFine/test").rglob("*.json")
    content = json.loads(dummy.read_text())
    content["objects"] = [{"label": "ego vehicle", "polygon": [[0, 150], [383, 150], [383, 191]]}]
    dummy.write_text(json.dumps(content))
    assert cli("build", "--cityscapes", tmp_path, "--output", tmp_path / "out", *OFF) == 0
    assert "1 images of the test split have no car: its public annotation is a dummy" in caplog.text


def test_the_configs_of_the_project_are_valid():
    from car_gan.crops.build import build_defaults

    from gan_plugin.engine.setup import merge_options

    for name in ("build_clean.yaml", "build_toy.yaml"):
        cfg = build_defaults()
        merge_options(cfg, str(CONFIGS / name), [])
        assert cfg.MODE == "rgba_crop"
