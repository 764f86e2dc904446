"""predict.py finds what Detectron2's own DefaultPredictor finds; pictures, videos, two models, mistakes."""

import json
import shutil
from pathlib import Path

import cv2
import export_generator
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from PIL import Image
from predict import main
from pycocotools import mask as rle_tools
from safetensors.torch import save_file
from small_models import build_shallow_fpn, tiny_cfg
from support import exit_code

from gan_plugin.engine.checkpoint import trained_classes
from gan_plugin.engine.export import stock_config
from gan_plugin.engine.predictor import load_predictor
from gan_plugin.visualization.panels import instance_from_mask
from gan_plugin.visualization.predictions import most_different, side_by_side

ROOT = Path(__file__).resolve().parents[2]
QUICK_YAML = "quick_schedules/gan_mask_rcnn_cityscapes_quick.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a config, weights of it, other weights, and two pictures of one size."""
    folder, cfg = tmp_path_factory.mktemp("made"), tiny_cfg()
    cfg.MODEL.BACKBONE.NAME = build_shallow_fpn.__name__
    cfg.MODEL.DEVICE, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = "cpu", 0.0, 5
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 96
    cfg.DATASETS.TEST = ("cityscapes_fine_instance_seg_val",)
    (folder / "config.yaml").write_text(cfg.dump())
    for name in ("model", "other"):
        state = {"model": build_model(cfg).state_dict(), "thing_classes": ["disc", "ring"]}
        torch.save(state, folder / f"{name}.pth")
    (folder / "pictures").mkdir()
    for name in ("a.png", "b.jpg"):
        pixels = np.random.default_rng(ord(name[0])).integers(0, 255, (60, 90, 3), np.uint8)
        Image.fromarray(cv2.blur(pixels, (9, 9))).save(folder / "pictures" / name)
    return folder


@pytest.fixture
def model(made, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(made, tmp_path / "copy")


def predict(folder, *arguments, config="config.yaml", weights="model.pth", given=("pictures",)):
    return exit_code(
        main,
        *("--config-file", folder / config, "--weights", folder / weights, "--input", *(folder / g for g in given)),
        *("--output", folder / "seen", "--json", folder / "found.json", *arguments),
    )


def found_in(folder):
    """image_id -> scores, boxes, masks and classes of the JSON file."""
    found = {}
    for result in json.loads((folder / "found.json").read_text()):
        found.setdefault(result["image_id"], []).append(result)
    return found


def assert_same_as_detectron2(folder, cfg, weights):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = str(weights), "cpu"
    theirs = DefaultPredictor(cfg)
    found = found_in(folder)
    assert sorted(found) == ["a", "b"]
    for name, results in found.items():
        expected = theirs(cv2.imread(next(map(str, (folder / "pictures").glob(f"{name}.*")))))["instances"]
        assert len(results) == len(expected) == 5
        assert [result["score"] for result in results] == expected.scores.tolist()
        assert [result["category_id"] - 1 for result in results] == expected.pred_classes.tolist()
        masks = np.array([rle_tools.decode(result["segmentation"]) for result in results], bool)
        np.testing.assert_array_equal(masks, expected.pred_masks.numpy())


def test_the_instances_are_detectron2s_of_any_form_of_the_model(model):
    """A run's config and weights, both orders of channels, an exported config, a .safetensors."""
    config = model / "config.yaml"
    stock = stock_config(config)
    weights = torch.load(model / "model.pth", weights_only=True)["model"]
    plain = {name: value for name, value in weights.items() if not name.startswith("adversaries.")}
    assert len(plain) < len(weights)
    torch.save({"model": plain}, model / "plain.pth")
    save_file(plain, model / "plain.safetensors")
    (model / "plain.yaml").write_text(stock.dump())
    for order in ("BGR", "RGB"):
        assert predict(model, "INPUT.FORMAT", order) == 0
        stock.INPUT.FORMAT = order
        assert_same_as_detectron2(model, stock, model / "plain.pth")
    results = (model / "found.json").read_bytes()
    for name in ("plain.pth", "plain.safetensors"):
        assert predict(model, "INPUT.FORMAT", "RGB", config="plain.yaml", weights=name) == 0
        assert (model / "found.json").read_bytes() == results
    for name in ("a.png", "b.jpg"):
        source, drawn = (np.asarray(Image.open(model / part / name)) for part in ("pictures", "seen"))
        assert source.shape == drawn.shape


def test_the_lines_of_the_readme(model, monkeypatch, capsys):
    monkeypatch.chdir(model)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (part.partition("```")[0] for part in readme.split("```python\n") if "load_predictor" in part)
    block = block.replace("output/gan/config.yaml", "config.yaml").replace("output/gan/model_final.pth", "model.pth")
    exec(block.replace("street.jpg", "pictures/b.jpg").replace("0.5", "0.0"), {})
    assert "Boxes" in capsys.readouterr().out
    # in colours that Visualizer draws by chance
    before, after = (np.asarray(Image.open(name)).astype(int) for name in ("pictures/b.jpg", "seen.jpg"))
    assert before.shape == after.shape and np.abs(before - after).max() > 50


def test_a_lazy_config_finds_what_the_same_yaml_config_does(tmp_path):
    files = [ROOT / f"configs/{name}" for name in ("lazy/gan_mask_rcnn_cityscapes_quick.py", QUICK_YAML)]
    opts = [["model.roi_heads.box_predictor.test_score_thresh=0.0"], ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]]
    torch.save({"model": instantiate(LazyConfig.load(str(files[0])).model).state_dict()}, tmp_path / "lazy.pth")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    both = zip(files, opts, strict=True)
    lazy, theirs = (load_predictor(str(file), str(tmp_path / "lazy.pth"), more)(pixels) for file, more in both)
    assert len(lazy) == len(theirs) > 0
    for name in ("scores", "pred_classes", "pred_masks"):
        assert torch.equal(lazy.get(name), theirs.get(name))


def test_classes_have_the_names_that_the_weights_or_the_data_set_know(model, monkeypatch):
    """A run's checkpoint, read once, both forms of an export, and weights without names."""
    reads = []
    once = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: reads.append(args) or once(*args, **kwargs))
    assert load_predictor(str(model / "config.yaml"), str(model / "model.pth")).classes == ["disc", "ring"]
    assert len(reads) == 1
    for name in ("export.pth", "export.safetensors"):
        config = model / f"{name}.yaml"
        assert exit_code(export_generator.main, model / "model.pth", model / name, "--config-out", config) == 0
        assert trained_classes(str(model / name)) == ["disc", "ring"]
        assert load_predictor(str(config), str(model / name)).classes == ["disc", "ring"]
    torch.save({"model": torch.load(model / "model.pth", weights_only=True)["model"]}, model / "nameless.pth")
    nameless = load_predictor(str(model / "config.yaml"), str(model / "nameless.pth"))
    assert nameless.classes[:2] == ["person", "rider"]


def test_only_what_scores_enough_is_drawn(model):
    assert predict(model, "--score", 1) == 0
    pixels = np.asarray(Image.open(model / "pictures/a.png"))
    assert np.abs(np.asarray(Image.open(model / "seen/a.png")).astype(int) - pixels).max() <= 1
    assert predict(model, "--score", 0) == 0
    assert np.abs(np.asarray(Image.open(model / "seen/a.png")).astype(int) - pixels).max() > 50
    assert all(len(results) == 5 for results in found_in(model).values())


def test_broken_pictures_are_named_and_the_others_go_on(model, capsys):
    (model / "pictures/d.png").write_bytes(b"no picture")
    whole = (model / "pictures/a.png").read_bytes()
    (model / "pictures/e.png").write_bytes(whole[: len(whole) // 2])
    assert predict(model) == 2
    error = capsys.readouterr().err
    assert "pictures/d.png" in error and "pictures/e.png" in error and "Traceback" not in error
    assert sorted(found_in(model)) == ["a", "b"]
    assert len(list((model / "seen").iterdir())) == 2


def test_videos_go_frame_by_frame(model, capsys):
    writer = cv2.VideoWriter(str(model / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (90, 60))
    for name in "aba":
        writer.write(cv2.resize(cv2.imread(next(map(str, (model / "pictures").glob(f"{name}.*")))), (90, 60)))
    writer.release()
    assert predict(model, "--score", 0, given=("film.avi", "pictures/a.png")) == 0
    assert {"film/000001", "film/000002", "film/000003"} < set(found_in(model))
    film = cv2.VideoCapture(str(model / "seen/film.mp4"))
    assert [film.read()[0] for _ in range(4)] == [True, True, True, False]
    (model / "broken.mp4").write_bytes(b"no film")
    assert predict(model, given=("broken.mp4",)) == 2
    assert "broken.mp4 cannot be read" in capsys.readouterr().err
    assert predict(model, "--against", model / "other.pth", given=("film.avi",)) == 2
    assert "leave the video" in capsys.readouterr().err


def test_against_shows_the_objects_that_differ_most():
    masks = np.zeros((5, 50, 60), bool)
    masks[0, 5:25, 5:25] = masks[1, 5:25, 5:25] = masks[2, 5:25, 5:20] = masks[3, 30:40, 30:40] = True
    masks[4, 45:48, 50:55] = True
    first = [instance_from_mask(mask, 0, 0.9) for mask in (masks[0], masks[3])]
    second = [instance_from_mask(mask, 0, 0.9) for mask in (masks[2], masks[4])]
    pairs = most_different(first, second)
    assert [(pair.first is None, pair.second is None) for pair in pairs] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    assert pairs[2].iou == pytest.approx(15 / 20)
    assert most_different(first, first) == []
    pixels = np.full((50, 60, 3), 128, np.uint8)
    sheet = side_by_side(pixels, [pixels, pixels], pairs, ["left", "right"], ["disc"])
    tiles = sheet[-300:]
    blue, yellow = ((tiles == colour).all(axis=2).sum(axis=0) for colour in ((86, 180, 233), (240, 228, 66)))
    # the first tile is of the left model alone, the second of the other, the third of both
    assert [bool(part[:300].sum()) for part in (blue, yellow)] == [True, False]
    assert [bool(part[306:606].sum()) for part in (blue, yellow)] == [False, True]
    assert [bool(part[612:912].sum()) for part in (blue, yellow)] == [True, True]


def test_against_writes_one_sheet_a_picture(model):
    assert predict(model, "--score", 0, "--against", model / "other.pth") == 0
    assert {Image.open(path).size[0] for path in (model / "seen").iterdir()} == {1218}


@pytest.mark.parametrize(
    ("given", "more", "words"),
    [
        (("nowhere",), (), "nowhere does not exist"),
        (("pictures/*.bmp",), (), "No file fits the pattern"),
        (("empty",), (), "holds no picture"),
        (("config.yaml",), (), "No picture can be read"),
        (("pictures",), ("--json", "nowhere/found.json"), "one that does not exist"),
        (("pictures",), ("--output", "pictures"), "is an input, and would be replaced"),
        (("pictures",), ("--config-file", "nowhere.yaml"), "nowhere.yaml"),
        (("pictures",), ("--weights", "nowhere.pth"), "nowhere.pth does not exist"),
        (("pictures",), ("--weights", "cut.pth"), "cut.pth"),
        (("pictures",), ("MODEL.FPN.OUT_CHANNELS", "8"), "another architecture"),
        (("pictures",), ("MODEL.ROI_HEADS.NUM_CLASSES", "3"), "another architecture"),
        (("pictures",), ("NO.KEY", "3"), "NO.KEY"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(model, capsys, monkeypatch, given, more, words):
    monkeypatch.chdir(model)
    (model / "empty").mkdir()
    (model / "cut.pth").write_bytes((model / "model.pth").read_bytes()[:1000])
    assert predict(Path(), *more, given=given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1
    assert not (model / "found.json").exists()
