"""The report on two kinds of runs, made up and trained: its numbers, and where predictions come from."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import visualize
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from support import exit_code, train

from gan_plugin.config import add_gan_config
from gan_plugin.errors import UserError
from gan_plugin.visualization.panels import instance_from_mask
from gan_plugin.visualization.run_files import predictions_of, stored_predictions

SIDE = 60


def square(columns):
    """The first columns of the object that each image has, a square of 20."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:40, 10 : 10 + columns] = True
    return mask


@pytest.fixture
def dataset(tmp_path):
    """Four images with a square each."""
    records = []
    for number in range(4):
        file = tmp_path / f"image{number}.png"
        Image.fromarray(np.full((SIDE, SIDE, 3), 60 * number, np.uint8)).save(file)
        annotation = {"bbox": [10, 20, 30, 40], "bbox_mode": 0, "category_id": 0}
        annotation["segmentation"] = [[10, 20, 30, 20, 30, 40, 10, 40]]
        records.append(
            {"file_name": str(file), "image_id": number, "height": SIDE, "width": SIDE, "annotations": [annotation]}
        )
    DatasetCatalog.register("squares_val", lambda: records)
    MetadataCatalog.get("squares_val").set(thing_classes=["cup"], evaluator_type="coco")
    yield "squares_val"
    DatasetCatalog.remove("squares_val")
    MetadataCatalog.remove("squares_val")


@pytest.fixture
def run(tmp_path, dataset):
    """(name, seed, columns of the square that are found in each image) -> the folder of such a run."""

    def make(name, seed, found):
        folder = tmp_path / f"seed{seed}" / name
        (folder / "inference").mkdir(parents=True)
        cfg = get_cfg()
        add_gan_config(cfg)
        cfg.DATASETS.TEST, cfg.SEED = (dataset,), seed
        (folder / "config.yaml").write_text(cfg.dump())
        results = []
        for number, columns in enumerate(found):
            rle = instance_from_mask(square(columns), 0).rle
            rle = {**rle, "counts": rle["counts"].decode()}
            results.append({"image_id": number, "category_id": 0, "bbox": [], "score": 0.9, "segmentation": rle})
        (folder / "inference/coco_instances_results.json").write_text(json.dumps(results))
        return folder

    return make


def text_of(path):
    page = path.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", "", page, flags=re.DOTALL)).split())


def test_two_seeds_of_two_sides(run, tmp_path, capsys):
    # 16 of 20 columns have IoU 0.8; 4 have 0.2, which is no try at the object
    baselines = [run("baseline", 3, [16, 20, 10, 10]), run("baseline", 5, [16, 20, 10, 10])]
    gans = [run("sharp", 3, [16, 4, 20, 12]), run("sharp", 5, [18, 4, 10, 12])]
    out = tmp_path / "deep/versus.html"
    words = ["--baseline", *map(str, baselines), "--gan", *map(str, gans), "--out", str(out)]
    assert exit_code(visualize.main, *words) == 0
    assert capsys.readouterr().out.strip() == str(out)
    text = text_of(out)
    # (0.8 + 1 + 0.5 + 0.5) / 4 and ((0.8 + 0.9) / 2 + 0 + (1 + 0.5) / 2 + 0.6) / 4
    assert (
        "4 annotated objects, their values averaged over 2 seeds. Mean mask IoU: 0.700 (baseline), 0.550 (sharp);"
        in text
    )
    assert "that gain: 3, that lose: 1. Missed: 0 (baseline) and 2 (sharp) of 8." in text
    gains, losses = text.split("Where sharp gains most")[1].split("Where sharp loses most")
    assert (
        "A cup in image2.png: sharp minus baseline is +0.25 by mask IoU (no. 1; seed 3: +0.50; seed 5: +0.00)" in gains
    )
    assert gains.index("image2.png") < gains.index("image3.png") < gains.index("image0.png")
    assert "In the pictures, which are of seed 3: mask IoU 0.50 (baseline) and 1.00 (sharp)" in gains
    assert (
        "A cup in image1.png: sharp minus baseline is −1.00 by mask IoU (no. 1; seed 3: −1.00; seed 5: −1.00)" in losses
    )
    assert "boundary IoU 1.00 (baseline) and 0.00 (sharp)" in losses and "sharp: nothing found" in losses
    assert "Greatest gain of 4 images, image2.png: sharp minus baseline is +0.25 by mean mask IoU" in losses
    assert "Greatest loss of 4 images, image1.png" in losses
    # there is no model to ask
    assert "No picture: " in losses and "model_final.pth is missing" in losses


def test_what_cannot_be_compared_is_a_sentence(run, tmp_path, capsys):
    base, gan = run("baseline", 0, [20] * 4), run("sharp", 0, [16] * 4)
    for words, sentence in (
        (["--gan", gan], "with both --baseline and --gan"),
        ([base, "--baseline", base, "--gan", gan], "with both --baseline and --gan"),
        ([], "name the OUTPUT_DIR of one run"),
        (["--baseline", base, base, "--gan", gan], "--baseline names 2 and --gan 1 runs"),
        (["--baseline", tmp_path, "--gan", gan], "left no config.yaml"),
    ):
        assert exit_code(visualize.main, *words) == 2
        assert sentence in capsys.readouterr().err
    (gan / "inference/coco_instances_results.json").unlink()
    assert exit_code(visualize.main, "--baseline", base, "--gan", gan) == 2
    assert "holds no predictions of squares_val, and its model cannot make them" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.html"))


def test_predictions_that_are_gone_are_made_anew(run_cfg):
    cfg = run_cfg
    cfg.DATASETS.TEST, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = ("penn_fudan_val",), 0.0
    train(cfg)
    folder = Path(cfg.OUTPUT_DIR)
    (folder / "config.yaml").write_text(cfg.dump())
    records = DatasetCatalog.get("penn_fudan_val")
    stored = stored_predictions(folder, "penn_fudan_val", records)
    assert predictions_of(folder, "penn_fudan_val", records) == stored
    (folder / "inference/coco_instances_results.json").unlink()
    made = predictions_of(folder, "penn_fudan_val", records)
    assert made.keys() == stored.keys() and sum(map(len, made.values())) > 0
    for name, found in made.items():
        assert [f.score for f in found] == pytest.approx([s.score for s in stored[name]])
        assert [f.label for f in found] == [s.label for s in stored[name]]
        assert all(np.array_equal(f.mask, s.mask) for f, s in zip(found, stored[name], strict=True))
    (folder / "model_final.pth").write_text("cut off")
    with pytest.raises(UserError, match="its model cannot make them"):
        predictions_of(folder, "penn_fudan_val", records)
