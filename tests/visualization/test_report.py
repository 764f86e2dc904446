"""The report and the curves of runs made up here: every number, picture and gap is known."""

import argparse
import json
import shutil
from html.parser import HTMLParser

import demo
import numpy as np
import pytest
import torch
import visualize
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from support import exit_code

from gan_plugin.config import add_gan_config
from gan_plugin.demos import clear_folder
from gan_plugin.engine.provenance import write_facts
from gan_plugin.errors import UserError
from gan_plugin.metrics import final_evaluation, read_metrics
from gan_plugin.visualization.curves import draw_curves, smooth
from gan_plugin.visualization.panels import instance_from_mask
from gan_plugin.visualization.report import write_report

SIDE = 64
# how many of the 20 columns of each image's object the prediction covers: IoU 1.0, 0.8, 0.6, and a miss
COVERED = {"whole": 20, "most": 16, "some": 12, "none": 0}


class Page(HTMLParser):
    """What a reader of the page gets: its cells, its pictures, its text, and what it would load from elsewhere."""

    def __init__(self, path):
        super().__init__()
        self.images, self.external, self.text, self.rows, self.open = [], [], "", [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.external += [v for k, v in attributes.items() if k in ("src", "href", "srcset") and v[:5] != "data:"]
        if tag == "img":
            self.images.append(attributes)
        if tag not in ("img", "meta"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] == "style":
            return
        assert "url(" not in data
        self.text += data
        if self.open[-1] in ("th", "td"):
            self.rows[-1].append(data)


def object_mask(columns):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:40, 10 : 10 + columns] = True
    return mask


@pytest.fixture
def dataset(tmp_path):
    """Four images with a square each; the third class has a name that HTML must not take for a tag."""
    records = []
    for name in COVERED:
        pixels = np.full((SIDE, SIDE, 3), 80, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        polygon = [10, 20, 30, 20, 30, 40, 10, 40]
        annotation = {"bbox": [10, 20, 30, 40], "bbox_mode": 0, "category_id": 1, "segmentation": [polygon]}
        records.append(
            {"file_name": str(tmp_path / f"{name}.png"), "image_id": name, "height": SIDE, "width": SIDE}
            | {"annotations": [annotation]}
        )
    DatasetCatalog.register("made_up_val", lambda: records)
    MetadataCatalog.get("made_up_val").set(thing_classes=["car", "rider", "<b>bus"], evaluator_type="coco")
    yield "made_up_val"
    DatasetCatalog.remove("made_up_val")
    MetadataCatalog.remove("made_up_val")


def training_line(iteration, playing=True):
    line = {"iteration": iteration, "loss_cls": 1.5, "loss_mask": 0.7, "loss_gen_total": 2.2, "lr": 0.01, "time": 0.25}
    return line | ({"loss_disc_total": 0.9, "loss_adv_mask": 0.6, "gan/mask/d_real": 0.8} if playing else {})


@pytest.fixture
def run(tmp_path, dataset):
    """A whole run of 40 iterations with every kind of file; the last line of metrics.json is cut off."""
    folder = tmp_path / "run"
    (folder / "inference").mkdir(parents=True)
    (folder / "samples").mkdir()
    cfg = get_cfg()
    add_gan_config(cfg)
    cfg.DATASETS.TEST = (dataset,)
    cfg.MODEL.GAN.MODE = "alternating"
    (folder / "config.yaml").write_text(cfg.dump())
    scores = {"cityscapes/AP": 12.345, "cityscapes/AP50": 34.5, "cityscapes/AP-rider": 7.125, "segm/AP": 11.0}
    lines = [training_line(19), training_line(39), {"iteration": 40, **scores, "segm/APs": float("nan")}]
    early = {"iteration": 20, "cityscapes/AP": 99.0, "segm/AP75": 98.0}
    text = "\n".join(json.dumps(line) for line in [lines[0], early, *lines[1:]])
    (folder / "metrics.json").write_text(text + '\n{"iteration": 59, "loss_c')
    results = []
    for name, columns in COVERED.items():
        if columns:
            rle = instance_from_mask(object_mask(columns), 1).rle
            rle = {**rle, "counts": rle["counts"].decode()}
            results.append({"image_id": name, "category_id": 1, "bbox": [], "score": 0.9, "segmentation": rle})
    (folder / "inference/coco_instances_results.json").write_text(json.dumps(results))
    before = "Traceback (most recent call last)\nan earlier run in the same folder, which failed\n"
    (folder / "log.txt").write_text(before)
    write_facts(folder, argparse.Namespace(config_file="c.yaml", opts=["SEED", "3"]))
    (folder / "log.txt").write_text(before + "[11/21 07:11:50] d2 INFO: Starting training from iteration 0\n")
    (folder / "model_final.pth").touch()
    Image.new("RGB", (8, 8)).save(folder / "samples/iter_0000019.png")
    return folder


def test_whole_run(run, tmp_path):
    page = Page(write_report(run, tmp_path / "deep/report.html"))
    assert page.external == [] and all(image["alt"] for image in page.images)
    assert ["all classes", "12.35", "34.50"] in page.rows or ["all classes", "12.34", "34.50"] in page.rows
    assert ["rider", "7.12", "n/a"] in page.rows and ["<b>bus", "n/a", "n/a"] in page.rows
    # not the earlier evaluation's 99 and 98; NaN and absent alike are n/a
    assert ["masks", "11.00", "n/a", "n/a", "n/a", "n/a", "n/a"] in page.rows
    assert "99.00" not in page.text and "98.00" not in page.text and "nan" not in page.text.lower().split()
    assert ["MODEL.GAN.MODE", "alternating"] in page.rows and ["Config file", "c.yaml"] in page.rows
    assert ["Options", "SEED 3"] in page.rows and ["PyTorch", torch.__version__] in page.rows
    assert ["Seconds an iteration (median)", "0.25"] in page.rows
    for place, iou in (("Best", "1.00"), ("Median", "0.60"), ("Worst", "0.00")):
        assert f"{place} of 4 images of made_up_val: mask IoU {iou}" in page.text
    assert "Iteration 19" in page.text and "did not come to its end" not in page.text
    assert "ends with an error" not in page.text


def test_command_line(run, capsys):
    assert exit_code(visualize.main, run) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert exit_code(visualize.main, run, "--score", "50") == 2
    assert "argument --score: 50 is no number from 0 to 1" in capsys.readouterr().err


def test_what_is_missing_is_a_sentence(run, tmp_path):
    (run / "inference/coco_instances_results.json").write_text('[{"image_id": ')
    (run / "samples/iter_0000019.png").unlink()
    (run / "model_final.pth").unlink()
    (run / "log.txt").write_text("first\nTraceback (most recent call last)\nValueError: <odd> & sad\n")
    text = Page(write_report(run, tmp_path / "report.html")).text
    for sentence in ("ends with an error", "ValueError: <odd> & sad", "missing or unusable", "no sample pictures"):
        assert sentence in text
    (run / "config.yaml").unlink()
    assert "left no config.yaml" in Page(write_report(run, tmp_path / "report.html")).text
    (run / "metrics.json").unlink()
    with pytest.raises(UserError, match="neither metrics.json nor config.yaml"):
        write_report(run, tmp_path / "report.html")


def results_with(change):
    def damage(run):
        file = run / "inference/coco_instances_results.json"
        results = json.loads(file.read_text())
        file.write_text(json.dumps(change(results) or results))

    return damage


LEFTOVERS = {
    "no metrics": lambda run: (run / "metrics.json").unlink(),
    "empty metrics": lambda run: (run / "metrics.json").write_text(""),
    "metrics of one line": lambda run: (run / "metrics.json").write_text('{"iteration": 0, "lr": 1.0}\n'),
    "metrics of other things": lambda run: (run / "metrics.json").write_text('[1]\nnull\n{"iteration": "a"}\n\x00'),
    "no predictions": lambda run: (run / "inference/coco_instances_results.json").unlink(),
    "nothing predicted": results_with(lambda results: results.clear()),
    "boxes alone": results_with(lambda results: [result.pop("segmentation") for result in results] and results),
    "polygons": results_with(lambda results: results[0].update(segmentation=[[1, 1, 9, 1, 9, 9]])),
    "an unknown class": results_with(lambda results: results[0].update(category_id="unicorn")),
    "a class too many": results_with(lambda results: results[0].update(category_id=17)),
    "other images": results_with(lambda results: [result.update(image_id=5) for result in results] and results),
    "other sizes": results_with(lambda results: results[0]["segmentation"].update(size=[9, 9])),
    "no list": lambda run: (run / "inference/coco_instances_results.json").write_text('{"a": 1}'),
    "config of nothing": lambda run: (run / "config.yaml").write_text(""),
    "config of a list": lambda run: (run / "config.yaml").write_text("- 1\n"),
    "config of text": lambda run: (run / "config.yaml").write_text("DATASETS: none\n"),
    "config of bytes": lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe\x00DATASETS"),
    "config with code": lambda run: (run / "config.yaml").write_text("A: !!python/object/apply:os.getcwd []\n"),
    "a broken sample": lambda run: (run / "samples/iter_0000019.png").write_bytes(b"PNG"),
    "no inference": lambda run: shutil.rmtree(run / "inference"),
}


@pytest.mark.parametrize("name", LEFTOVERS)
def test_a_report_survives_whatever_a_run_left(run, name, tmp_path):
    LEFTOVERS[name](run)
    page = Page(write_report(run, tmp_path / "report.html"))
    assert page.external == [] and run.name in page.text


def test_categories_may_have_texts_for_ids(run, dataset, tmp_path):
    MetadataCatalog.get(dataset).set(thing_dataset_id_to_contiguous_id={"vehicle": 0, "rider": 1, "7": 2})
    results_with(lambda results: [result.update(category_id="rider") for result in results] and results)(run)
    assert "Best of 4 images of made_up_val: mask IoU 1.00" in Page(write_report(run, tmp_path / "report.html")).text


def test_data_set_that_is_gone(run, tmp_path):
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("made_up_val", "no_such_val"))
    (run / "metrics.json").unlink()
    text = Page(write_report(run, tmp_path / "report.html")).text
    assert "The test set is not available" in text and "no_such_val" in text and "holds no evaluation" in text


def test_a_line_that_was_cut_off_does_not_take_the_next_one_with_it(tmp_path):
    whole = [{"iteration": number, "lr": float(number)} for number in range(4)]
    texts = [json.dumps(line) for line in whole]
    for cut in (1, 12, len(texts[1])):
        (tmp_path / "metrics.json").write_text("\n".join([texts[0], texts[1][:cut] + texts[2], texts[3]]) + "\n")
        kept = [0, 1, 2, 3] if cut == len(texts[1]) else [0, 2, 3]
        assert read_metrics(tmp_path / "metrics.json") == [whole[number] for number in kept]


def test_resumed_run_overrides_what_it_repeats(tmp_path):
    lines = [{"iteration": 19, "a": 1.0, "b": 2.0}, {"iteration": 39, "a": 3.0}, {"iteration": 19, "a": 5.0}]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)) + '\n[1]\n{"iteration": "x"}\n')
    assert read_metrics(tmp_path / "metrics.json") == [
        {"iteration": 19, "a": 5.0, "b": 2.0},
        {"iteration": 39, "a": 3.0},
    ]
    assert final_evaluation([{"iteration": 1, "segm/AP": 3.0}, {"iteration": 2, "loss": 1.0}])["segm/AP"] == 3.0


def test_curves_of_both_players_and_of_one():
    both = {curve.title: curve for curve in draw_curves([training_line(i) for i in range(0, 800, 20)])}
    assert {"Discriminator: sum of its losses", "Discriminator: its verdicts"} <= both.keys()
    alone = [curve.title for curve in draw_curves([training_line(i, playing=False) for i in range(0, 800, 20)])]
    assert alone and not any("Discriminator" in title or "adversarial" in title for title in alone)
    # before the game starts its losses are written as 0, which is not a value they had
    waiting = training_line(0) | {"loss_disc_total": 0.0, "loss_adv_mask": 0.0}
    titles = {curve.title: curve.alt for curve in draw_curves([waiting, training_line(20), training_line(40)])}
    assert "0.9 at iteration 20" in titles["Discriminator: sum of its losses"]
    assert "var(--ink)" in both["Learning rates"].svg


def test_smoothing_keeps_lines_and_totals():
    assert np.allclose(smooth(np.full(100, 3.0)), 3)
    line = np.arange(100.0)
    assert np.allclose(smooth(line)[5:-5], line[5:-5])
    assert smooth(np.array([1.0])) == [1.0]


def test_demo_clears_only_its_own_runs(tmp_path):
    mine, yours = tmp_path / "mine", tmp_path / "yours"
    clear_folder(mine)
    (mine / "model_final.pth").touch()
    clear_folder(mine)
    assert not (mine / "model_final.pth").exists()
    yours.mkdir()
    (yours / "model_final.pth").touch()
    with pytest.raises(UserError, match="not of a demo"):
        clear_folder(yours)
    assert (yours / "model_final.pth").exists()


def test_demo_says_which_score_is_missing(run):
    assert demo.read_scores(run / "metrics.json") == pytest.approx([12.345, 34.5, 11.0])
    (run / "metrics.json").write_text('{"iteration": 1, "cityscapes/AP": 1.0, "cityscapes/AP50": NaN, "segm/AP": 2}')
    with pytest.raises(UserError, match="no cityscapes/AP50"):
        demo.read_scores(run / "metrics.json")


def test_demo_stops_at_a_failed_step(tmp_path, capsys):
    arguments = ["--out", tmp_path, "--size", "32x32"]
    assert exit_code(demo.main, *arguments) == 2
    assert "step 1/3 Toy data failed (exit code 2)" in capsys.readouterr().err
