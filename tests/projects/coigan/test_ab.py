"""The detector with and without synthetic defects: what each arm trains on, what would be unfair, and a run of it."""

import argparse
import json
import shutil
from pathlib import Path

import inpaint
import pytest
import train_net
from coigan.ab import Sets, make_ab_plan, read_tile_set
from coigan.augmentation import BASELINES, Source, write_augmented
from coigan.data.line_sets import LineSet
from coigan.data.objects import ObjectStore
from coigan.data.placer import Placer
from coigan.data.prepare import PrepareOptions, prepare
from coigan.data.stages import open_prepared
from forked_runs import forked_runs
from support import SMALLEST_MODEL

from gan_plugin.comparison import run as run_module
from gan_plugin.engine.setup import load_config
from gan_plugin.errors import UserError

CONFIG = Path(inpaint.__file__).parent / "configs/detector/mask_rcnn_toy.yaml"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """JSONs of real training and test tiles of toy steel, of copied defects, and of these with the real ones."""
    root = tmp_path_factory.mktemp("ab")
    prepare("toy", root / "steel", PrepareOptions(tile=64, workers=1, toy_count=16, toy_size=(64, 136)))
    steel = open_prepared(root / "steel")
    placer = Placer([ObjectStore(steel.objects(n)) for n in range(4)], steel.tile, (0.0, 1.0))
    source, facts = Source(steel.tiles("base"), placer, steel.classes), {"method": "copy_paste"}
    made = {"copies": None, "whole": LineSet(steel.root / "train")}
    for name, real in made.items():
        write_augmented(root / name, source, BASELINES["copy_paste"], 6, 0, facts, real)
    return {
        **{name: steel.root / name / "annotations.json" for name in ("train", "test")},
        **{name: root / name / "annotations.json" for name in made},
    }


def plan_of(files, train="train", test="test", options=(), **extras):
    sets = Sets(
        read_tile_set(files[train]),
        read_tile_set(files[test]),
        {name: read_tile_set(files[file]) for name, file in extras.items()},
    )
    cfg = load_config(argparse.Namespace(config_file=str(CONFIG), opts=list(options)))
    return make_ab_plan(cfg, sets, config_file=str(CONFIG), seeds=[0, 1], iterations=(5, 9))


def test_arms_differ_in_their_tiles_alone(files):
    runs = {run.name: run.settings for run in plan_of(files, copy_paste="copies").runs()}
    assert list(runs) == [f"seed{seed}/{arm}" for seed in (0, 1) for arm in ("a", "baseline", "copy_paste")]
    for seed in (0, 1):
        model_a, baseline, copies = (runs[f"seed{seed}/{arm}"] for arm in ("a", "baseline", "copy_paste"))
        assert {key for key in baseline if baseline[key] != copies[key]} == {"DATASETS.TRAIN"}
        assert model_a["DATASETS.TRAIN"] == baseline["DATASETS.TRAIN"] == copies["DATASETS.TRAIN"][:1]
        assert len(copies["DATASETS.TRAIN"]) == 2 and baseline["DATASETS.TEST"] == copies["DATASETS.TEST"]
        assert not any(run["MODEL.GAN.ENABLED"] for run in (model_a, baseline, copies))


def test_a_set_that_was_written_anew_is_another_comparison(files, tmp_path):
    folder = tmp_path / "copies"
    shutil.copytree(files["copies"].parent, folder)
    moved = {**files, "copies": folder / "annotations.json"}
    former = plan_of(moved, gan="copies")
    content = json.loads(moved["copies"].read_text())
    content["annotations"].pop()
    moved["copies"].write_text(json.dumps(content))
    assert former.arms["gan"] != plan_of(moved, gan="copies").arms["gan"]


def test_unfair_comparisons_are_refused(files, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    for arguments, sentence in (
        ({"train": "whole"}, "holds synthetic images; name the JSON of real tiles"),
        ({"gan": "train"}, "not marked as synthetic; write it by inpaint.py augment without --with-real"),
        ({"gan": "whole"}, "not marked as synthetic"),
        ({"test": "train"}, "which is trained on; use other images"),
        ({"baseline": "copies"}, "An arm cannot be called 'baseline'"),
        ({"options": ("MODEL.ROI_HEADS.NUM_CLASSES", "3")}, "NUM_CLASSES 3, the tiles have 4 classes"),
    ):
        with pytest.raises(UserError, match=sentence):
            plan_of(files, **arguments)
    with pytest.raises(UserError, match="no COCO JSON with images"):
        plan_of({**files, "train": tmp_path / "x.json"})


def test_from_tiles_to_an_interval(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_module, "TrainNet", forked_runs(train_net.main))
    tiny = {**SMALLEST_MODEL, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0, "SOLVER.IMS_PER_BATCH": 2,
            "TEST.DETECTIONS_PER_IMAGE": 5}  # fmt: skip
    words = ["ab", "--config-file", CONFIG, "--train", files["train"], "--test", files["test"], "--extra"]
    words += [f"copy_paste={files['copies']}", "--seeds", 0, 1, "--iters-a", 1, "--iters-b", 2]
    words += ["--output", tmp_path / "out", "--", *(part for option in tiny.items() for part in option)]
    assert inpaint.main([str(word) for word in words]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["failures"] == {} and set(results["runs"]) == {"a", "baseline", "copy_paste"}
    rows = results["statistics"]["segm/AP"]
    differences = [rows["copy_paste"]["values"][seed] - rows["baseline"]["values"][seed] for seed in "01"]
    assert rows["copy_paste"]["difference"]["mean"] == pytest.approx(sum(differences) / 2)
    assert "segm/AP, copy_paste minus baseline: " in capsys.readouterr().out
    page = (tmp_path / "out/report.html").read_text()
    assert "Sum of the losses, of copy_paste with seed 1" in page and "Generator: sum" not in page
    assert "Do painted defects help?" in page and "the real tiles and 6 synthetic ones by copy_paste" in page
