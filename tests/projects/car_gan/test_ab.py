"""The comparison with and without new cars: what each arm trains on, what would be unfair, and a run of it all."""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cars
import pytest
from car_gan.ab import Sets, make_ab_plan
from support import SMALLEST_MODEL

from gan_plugin.comparison import run as run_module
from gan_plugin.engine.setup import load_config
from gan_plugin.errors import UserError

CONFIG = Path(__file__).resolve().parents[3] / "configs/quick_schedules/mask_rcnn_cityscapes_quick.yaml"


@pytest.fixture(scope="module")
def sets(toy, toy_crops, tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    common = ["compose", "--cityscapes", str(toy), "--output"]
    cars.main([*common, str(root / "real"), "MIX", "0"])
    cars.main([*common, str(root / "test"), "MIX", "0", "SPLITS", "('val',)"])
    cars.main([*common, str(root / "composed"), "--samples", str(toy_crops), "MIX", "1", "PLACE.MAX_ENLARGE", "9.0"])
    return Sets(root / "real", {"synthetic": root / "composed"}, root / "test")


def cfg(*options):
    return load_config(argparse.Namespace(config_file=str(CONFIG), opts=list(options)))


def plan_of(sets, config=None, **changes):
    options = {"seeds": [0, 1], "iterations": (5, 9), **changes}
    return make_ab_plan(config or cfg(), sets, config_file=str(CONFIG), **options)


def test_arms_differ_in_their_scenes_alone(sets):
    several = replace(
        sets, composed={"gan": sets.composed["synthetic"], "copies": sets.composed["synthetic"]}, both=True
    )
    runs = {run.name: run for run in plan_of(several).runs()}
    arms = ["baseline", "gan", "gan_and_real", "copies", "copies_and_real"]
    assert list(runs) == [f"seed{s}/{arm}" for s in (0, 1) for arm in ("a", *arms)]
    trained = {run.arm: run.settings["DATASETS.TRAIN"] for run in runs.values()}
    assert trained == {
        "a": ["ab_real"],
        "baseline": ["ab_real"],
        "gan": ["ab_gan"],
        "gan_and_real": ["ab_real", "ab_gan"],
        "copies": ["ab_copies"],
        "copies_and_real": ["ab_real", "ab_copies"],
    }
    first, *others = (dict(runs[f"seed1/{arm}"].settings) for arm in arms)
    for other in others:
        assert {key for key in first if first[key] != other[key]} == {"DATASETS.TRAIN"}
    assert first["DATASETS.TEST"] == ["ab_test"] and runs["seed1/copies"].iterations == 9


def changed(folder, target, change):
    shutil.copytree(folder, target)
    content = json.loads((target / "annotations.json").read_text())
    change(content)
    (target / "annotations.json").write_text(json.dumps(content))
    return target


def test_unfair_comparisons_are_refused(sets, tmp_path):
    composed = sets.composed["synthetic"]
    for wrong, sentence in (
        (replace(sets, real=composed), "holds synthetic objects; make it with .* MIX 0"),
        (replace(sets, composed={"synthetic": sets.real}), "holds no synthetic object"),
        (replace(sets, test=sets.real), "which is trained on; use other scenes"),
        (replace(sets, test=tmp_path), "has no annotations.json of cars.py compose"),
        (replace(sets, composed={"baseline": composed}), "An arm cannot be called 'baseline'; give --composed another"),
    ):
        with pytest.raises(UserError, match=sentence):
            plan_of(wrong)
    fewer = changed(composed, tmp_path / "fewer", lambda content: content["images"].pop())
    with pytest.raises(UserError, match="differ in the scene train/"):
        plan_of(replace(sets, composed={"synthetic": fewer}))
    other = changed(sets.test, tmp_path / "other", lambda content: content["categories"].pop())
    with pytest.raises(UserError, match="have different categories"):
        plan_of(replace(sets, test=other))
    with pytest.raises(UserError, match="NUM_CLASSES 3, the scenes have 8 classes"):
        plan_of(sets, cfg("MODEL.ROI_HEADS.NUM_CLASSES", "3"))


def test_a_category_that_the_scenes_do_not_have_is_refused_at_once(sets, tmp_path, cli, capsys):
    words = ("--real", sets.real, "--test", sets.test, "--composed", sets.composed["synthetic"], "--category", "boat")
    assert cli("ab", "--config-file", CONFIG, *words, "--iters-a", 1, "--iters-b", 1, "--output", tmp_path / "o") == 2
    assert (
        "--category is 'boat', which is unknown; the known ones are 'person', 'rider', 'car'" in capsys.readouterr().err
    )
    assert not (tmp_path / "o").exists()


def test_from_scenes_to_an_interval(sets, forked, tmp_path, cli, capsys, monkeypatch):
    monkeypatch.setattr(run_module, "TrainNet", forked)
    tiny = {**SMALLEST_MODEL, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0, "INPUT.MIN_SIZE_TRAIN": (96,),
            "INPUT.MIN_SIZE_TEST": 96}  # fmt: skip
    words = ("ab", "--config-file", CONFIG, "--real", sets.real, "--test", sets.test)
    words += ("--composed", sets.composed["synthetic"])
    numbers = ("--seeds", 0, 1, "--iters-a", 1, "--iters-b", 2, "--output", tmp_path / "out")
    assert cli(*words, *numbers, *(part for option in tiny.items() for part in option)) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["failures"] == {} and set(results["runs"]) == {"a", "baseline", "synthetic"}
    row = results["statistics"]["segm/AP-car"]["synthetic"]
    values = {arm: results["statistics"]["segm/AP-car"][arm]["values"] for arm in ("baseline", "synthetic")}
    differences = [values["synthetic"][seed] - values["baseline"][seed] for seed in "01"]
    assert row["difference"]["mean"] == pytest.approx(sum(differences) / 2)
    low, high = row["difference"]["interval"]
    assert min(differences) <= low <= high <= max(differences)
    assert "segm/AP-car, synthetic minus baseline: " in capsys.readouterr().out
    page = (tmp_path / "out/report.html").read_text()
    assert "Do generated cars help?" in page and "discriminator" not in page.split("<h2>What ran")[0]
    assert page.index("segm/AP-car <small>") < page.index("segm/AP <small>")


def test_annotated_cars_are_counted_in_scenes_without_new_ones(sets):
    for folder in (sets.real, sets.composed["synthetic"]):
        content = json.loads((folder / "annotations.json").read_text())
        (car,) = (entry["id"] for entry in content["categories"] if entry["name"] == "car")
        single = (line for line in content["annotations"] if line["category_id"] == car and not line["iscrowd"])
        cars_of = [line["synthetic"] for line in single]
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["annotated"] == cars_of.count(0) > 0 and summary["synthetic"] == cars_of.count(1)
