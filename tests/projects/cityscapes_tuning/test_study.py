"""A study's description, its parts, and the numbers that the slides print."""

import json
import os
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from cityscapes_tuning.config import add_tuning_config
from cityscapes_tuning.data.parts import (
    SEED002,
    SEED002_IMAGES,
    SEED002_STATISTICS,
    TEN,
    Part,
    check_leaks,
    parse_parts,
    seed002_differences,
)
from cityscapes_tuning.data.register import record_of, write_part
from cityscapes_tuning.data.statistics import PartStatistics, ceilings, distance, part_statistics
from cityscapes_tuning.reporting import seed_rows
from cityscapes_tuning.reporting.picture import EXAMPLE_MATCHES, EXAMPLE_OBJECTS
from cityscapes_tuning.reporting.plots import suggested_rate
from cityscapes_tuning.search.context import shrunk
from cityscapes_tuning.search.estimate import coarse_count, planned
from cityscapes_tuning.search.fine import fine_plan
from cityscapes_tuning.search.phases import level_settings
from cityscapes_tuning.search.storage import JOURNAL, open_storage
from cityscapes_tuning.search.study import check_ranges, check_settings, parse_study
from cityscapes_tuning.search.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from support import plugin_cfg

from gan_plugin.errors import UserError
from gan_plugin.evaluation.per_image_ap import average_precision

CONFIGS = Path(__file__).resolve().parents[3] / "projects/CityscapesTuning/configs"


def test_the_worked_example_of_the_slides():
    matches = np.array(EXAMPLE_MATCHES)
    right = np.cumsum(matches >= 0)
    assert right.tolist() == [1, 2, 3, 4, 4, 5]
    assert (right / np.arange(1, 7)).round(2).tolist() == [1, 1, 1, 1, 0.8, 0.83]
    assert (right / EXAMPLE_OBJECTS).tolist() == [0.2, 0.4, 0.6, 0.8, 0.8, 1]
    assert average_precision(matches, EXAMPLE_OBJECTS) == pytest.approx(0.9667, abs=5e-5)


def test_the_slides_rows_agree_with_one_another():
    for variant, values in seed_rows.AP.items():
        assert np.mean(values) == pytest.approx(seed_rows.RAP[variant], abs=1.1e-3)
    means = [np.mean([seed_rows.class_ap(variant, name) for name in TEN]) for variant in seed_rows.VARIANTS]
    assert np.round(means, 3).tolist() == [0.299, 0.324, 0.317, 0.303, 0.328]


def test_the_presets_cities_have_the_slides_numbers_of_images():
    # images of the cities of Cityscapes fine, as its paper's supplement and its file lists have them
    sizes = {
        "aachen": 174, "bochum": 96, "bremen": 316, "cologne": 154, "darmstadt": 85, "dusseldorf": 221, "erfurt": 109,
        "hamburg": 248, "frankfurt": 267, "lindau": 59, "munster": 174,
    }  # fmt: skip
    assert {name: sum(sizes[city] for city in part.cities) for name, part in SEED002.items()} == SEED002_IMAGES


def test_the_real_splits_statistics(tmp_path):
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    if not (root / "cityscapes/gtFine/train/aachen").is_dir():
        pytest.skip("needs the real Cityscapes under DETECTRON2_DATASETS")
    counted = {
        name: part_statistics(write_part(part, tmp_path / f"{name}.json", plugin_cfg(), TEN)["records"], TEN)
        for name, part in SEED002.items()
    }
    assert not seed002_differences(
        {name: part.images for name, part in counted.items()},
        {name: part.most for name, part in counted.items()},
        {name: part.empty for name, part in counted.items()},
    )


def test_what_differs_from_the_slides_is_said():
    most, empty = ({part: pair[i] for part, pair in SEED002_STATISTICS.items()} for i in (0, 1))
    assert seed002_differences(SEED002_IMAGES, most, empty) == []
    (sentence,) = seed002_differences(SEED002_IMAGES, {**most, "val": 65}, empty)
    assert "val has at most 65 instances in an image and 8 images without any, not 66 and 8" in sentence


def test_leaks_between_parts_are_refused():
    apart = {
        "train": {"a": "aachen"},
        "small_train": {},
        "val": {"b": "lindau"},
        "small_val": {},
        "test": {"c": "munster"},
    }
    assert check_leaks(apart, allowed=False) == []
    with pytest.raises(UserError, match="1 images, such as a, are used both for training and for judging"):
        check_leaks({**apart, "test": {"a": "aachen"}}, allowed=False)
    with pytest.raises(UserError, match="Pictures of lindau are used both for tuning and for judging"):
        check_leaks({**apart, "test": {"d": "lindau"}}, allowed=False)
    assert len(check_leaks({**apart, "test": {"d": "lindau"}}, allowed=True)) == 1


def test_parts_fall_back_and_refuse_what_they_do_not_know():
    parts = parse_parts("", {"train": "a", "val": {"split": "val", "cities": ["x"], "images": 3}})
    assert parts["test"] == parts["small_val"] == Part(split="val", cities=("x",), images=3)
    for preset, entries, said in (
        ("seed003", {}, "'seed002', 'official'"),
        ("", {"train": "a"}, "lacks 'val'"),
        ("", {"tran": "a"}, "did you mean 'train'"),
        ("", {"train": {"cities": []}}, "either `dataset` or `split`"),
        ("", {"train": {"split": "train", "cities": "aachen"}}, "data.parts.train.cities is 'aachen'; give a list"),
        ("", {"train": {"split": "train", "images": -1}}, "data.parts.train.images is -1; give 0 or more"),
    ):
        with pytest.raises(UserError, match=said):
            parse_parts(preset, entries)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"phase": {}}, "a key 'phase'"),
        ({"config": "gone.yaml"}, "gone.yaml does not exist"),
        ({"phases": {"coarse": {"lr": ["1e-3"]}}}, "write 1e-3 as 1.0e-3"),
        ({"phases": {"coarse": {"epoch": 3}}}, "phases.coarse has a key 'epoch'"),
        ({"phases": {"fine": {"arms": {"sgd": {"space": {"lr": [1, 0.1]}}}}}}, "give \\[low, high\\]"),
        ({"phases": {"fine": {"arms": {"a": {}}, "sampler": "best"}}}, "random, tpe, qmc"),
        ({"phases": {"full": {"variants": {"V5": {"from": "V1"}}}}}, "'V1', which is no variant"),
        ({"phases": {"confirm": {}}}, "add phases.fine"),
        ({"data": {"preset": "seed002", "classes": 9}}, "10 as in the slides, or 8"),
        ({"phases": {"coarse": {"lr": 0.1}}}, "phases.coarse.lr is 0.1; give a list"),
        ({"phases": {"coarse": {"epochs": "four"}}}, "phases.coarse.epochs is 'four'; give a number"),
        ({"seed": "abc"}, "seed is 'abc'; give a whole number"),
        ({"phases": {"fine": {"arms": {"a": {"spaces": {}}}}}}, "phases.fine.arms.a has a key 'spaces'.*'space'"),
        ({"objective": {"metric": "segm/AP", "direction": "minimize"}}, "direction is 'minimize'.* set it to maximize"),
        ({"objective": {"direction": "maximize"}}, "objective.direction is 'maximize'.* set it to minimize"),
        ({"objective": {"metric": "AP"}}, "objective.metric is 'AP'"),
        ({"phases": {"coarse": {"settings": {"SOLVER.OPTIMISER": "sgd"}}}}, "did you mean 'SOLVER.OPTIMIZER'"),
        ({"phases": {"coarse": {"factors": {"a": {"b": {"lrr": 1}}}}}}, "phases.coarse.factors.a.b has a key 'lrr'"),
        ({"settings": {"TUNING.FREEZ": []}}, "settings has a key 'TUNING.FREEZ'.*'TUNING.FREEZE'"),
        ({"settings": {"SOLVER.BASE_LR": "fast"}}, "^settings.SOLVER.BASE_LR is 'fast'; give a value of the kind"),
        ({"settings": {"SOLVER.IMS_PER_BATCH": [2]}}, "^settings.SOLVER.IMS_PER_BATCH is \\[2\\]; give a value"),
        ({"settings": {"lr": -0.1}}, "^settings.lr is -0.1; give a number, more than 0"),
        ({"settings": {"momentum": [0.9]}}, "^settings.momentum is \\[0.9\\]; give a number, 0 or more and less"),
        ({"phases": {"coarse": {"lr": [0.1, 0]}}}, "^phases.coarse.lr\\[1\\] is 0; give more than 0"),
        ({"phases": {"coarse": {"epochs": [3]}}}, "^phases.coarse.epochs is \\[3\\]; give a number"),
        ({"phases": {"full": {"variants": {"../V1": {}}}}}, "^phases.full.variants has the name '../V1'; a name is"),
        ({"phases": {"full": {"variants": {"": {}}}}}, "^phases.full.variants has the name ''; a name is"),
        ({"settings": {"TUNING.CROP.PROB": 1.5}}, "^settings.TUNING.CROP.PROB is 1.5; set it to a number from 0 to 1"),
        (
            {"settings": {"SOLVER.IMS_PER_BATCH": 0}},
            "^settings.SOLVER.IMS_PER_BATCH is 0; set it to a whole .* 1 or more",
        ),
        (
            {"settings": {"TUNING.FREEZE": ["rnp"]}},
            "^settings.TUNING.FREEZE is 'rnp', .* unknown; did you mean 'rpn'",
        ),
        ({"name": "a/b"}, "^name is 'a/b'; a name is"),
        ({"data": {"parts": {"train": {"city": "a"}}}}, "^data.parts.train has a key 'city'"),
        ({"budget": {"hours": -1}}, "^budget.hours is -1; give 0 or more"),
        (
            {"phases": {"fine": {"arms": {"a": {"space": {"momentum": [0.9, 1.5]}}}}}},
            "^phases.fine.arms.a has momentum: \\[0.9, 1.5\\]",
        ),
    ],
)
def test_mistakes_in_a_study_are_named(change, said):
    content = yaml.safe_load((CONFIGS / "toy_study.yaml").read_text())
    with pytest.raises(UserError, match=said):
        study = parse_study({**content, **change}, CONFIGS, "")
        check_settings(study, trial_config())
        check_ranges(study, trial_config())


@pytest.mark.parametrize("parent", [[""], {"a": 1}, 3, "V9"])
def test_a_variant_continues_from_another_one(parent):
    content = yaml.safe_load((CONFIGS / "seed002_study.yaml").read_text())
    content["phases"]["full"]["variants"]["V3+V5"]["from"] = parent
    with pytest.raises(UserError, match="'?V3.V5'? continues from .*, which is no variant before it"):
        parse_study(content, CONFIGS, "")


def trial_config():
    cfg = plugin_cfg()
    add_tuning_config(cfg)
    return cfg


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_a_study_holds_is_a_study_or_a_sentence_that_names_the_key(data):
    """Any value in the place of any other one of a study that has all phases."""
    content = yaml.safe_load(
        (CONFIGS / data.draw(st.sampled_from(["toy_study.yaml", "seed002_study.yaml"]))).read_text()
    )
    place = data.draw(st.sampled_from([place for place in places_in(content) if place]))
    node = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = data.draw(
        st.one_of(
            *(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=4)),
            *(st.just({}), st.just([]), st.lists(st.text(max_size=2), max_size=2)),
            st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        )
    )
    try:
        study = parse_study(content, CONFIGS, "")
        check_settings(study, trial_config())
    except UserError as error:
        assert "Traceback" not in str(error) and len(str(error)) > 20
        return
    for phase in study.phases.values():
        assert getattr(phase, "epochs", 1) > 0


def places_in(value, place=()):
    yield place
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places_in(child, (*place, key))


def entry(number):
    return json.dumps({"op_code": 0, "worker_id": "w", "study_name": f"case/{number}", "directions": [1]}) + "\n"


@pytest.mark.parametrize("cut", [1, 10, 40, -1])
@pytest.mark.parametrize("goes_on", [False, True])
def test_half_a_line_at_the_end_of_the_journal_is_dropped(tmp_path, cut, goes_on, caplog):
    """Also where the version before this one has appended whole entries to it."""
    (tmp_path / JOURNAL).write_text(entry(1) + entry(2) + entry(3)[:cut] + goes_on * (entry(4) + entry(5)))
    names = [f"case/{number}" for number in (1, 2, *([4, 5] if goes_on else []))]
    assert [study.study_name for study in open_storage("", tmp_path).get_all_studies()] == names
    assert "has half a line" in caplog.text
    table = Table(open_storage("", tmp_path), "case")
    table.optuna_study("new")
    assert Table(open_storage("", tmp_path), "case").phases() == [*(name[5:] for name in names), "new"]


def test_a_damaged_line_in_the_middle_of_the_journal_is_refused(tmp_path):
    text = entry(1) + entry(2)[:20] + "\n" + entry(3)
    (tmp_path / JOURNAL).write_text(text)
    with pytest.raises(UserError, match=f"{JOURNAL}, line 2 is damaged"):
        open_storage("", tmp_path)
    assert (tmp_path / JOURNAL).read_text() == text


def test_the_slides_study_is_planned_with_their_numbers(slides):
    # babysitting 51 epochs of 154 steps; coarse 4 rates for 1 + 1 + 1 + 1 settings of 15 epochs
    plans = planned(slides)
    assert plans["babysit"] == (2, 51 * 154 + 154)
    assert coarse_count(slides.study.phases["coarse"]) == 16 and plans["coarse"][1] == 16 * 15 * 154
    # 9 + 3 + 1 + 5 + 1 + 3 stretches of training for each of two optimizers
    assert plans["fine"][0] == 2 * 22
    assert plans["full"] == (9, 9 * 20 * 1403)


def test_settings_follow_the_layers_and_adams_momentum_is_its_beta(slides):
    arguments = {"train": "small_train", "val": "small_val", "iterations": 10}
    sgd = slides.settings({"lr": 1e-3, "momentum": 0.98}, {"SOLVER.BASE_LR": 2e-3}, **arguments)
    assert sgd["SOLVER.BASE_LR"] == 2e-3 and sgd["SOLVER.MOMENTUM"] == 0.98 and "SOLVER.BETAS" not in sgd
    adam = slides.settings({"momentum": 0.96}, {"SOLVER.OPTIMIZER": "adam"}, **arguments)
    assert adam["SOLVER.BETAS"] == [0.96, 0.999] and "SOLVER.MOMENTUM" not in adam
    assert adam["TUNING.SOURCE_CLASSES"] == "coco"
    assert slides.settings({"MODEL.WEIGHTS": "@full/V1"}, **arguments)["TUNING.SOURCE_CLASSES"] == ""


def test_weights_may_depend_on_the_backbone(slides):
    coarse = slides.study.phases["coarse"]
    for backbone, file in (("r50", "R-50.pkl"), ("r101", "R-101.pkl")):
        levels = {"weights": "imagenet", "backbone": backbone, "optimizer": "sgd"}
        assert level_settings(coarse, levels)["MODEL.WEIGHTS"].endswith(file)
    del coarse.factors["weights"]["imagenet"]["MODEL.WEIGHTS"]["r101"]
    assert level_settings(coarse, {"weights": "imagenet", "backbone": "r101"}) is None


def test_points_lie_in_the_space_and_do_not_depend_on_who_draws_them(slides):
    def draw():
        fine = slides.study.phases["fine"]
        plan = fine_plan(slides, fine, "sgd", {}, {}, fine.arms["sgd"].space)
        return {entry.key: entry.params for entry in plan.wanted}

    points = draw()
    assert len(points) == 9 + 5 + 3 and points == draw()
    assert len({point["lr"] for point in points.values()}) == 17
    for point in points.values():
        assert (
            1e-5 <= point["lr"] <= 1e-4 and 0.9 <= point["momentum"] <= 0.99 and 1e-4 <= point["weight_decay"] <= 1e-2
        )


def test_statistics_and_their_distance():
    def record(*labels):
        return {"annotations": [{"category_id": label, "iscrowd": int(label == 2)} for label in labels]}

    counted = part_statistics([record(0, 0, 1), record(), record(2), record(1)], ["a", "b", "c"])
    assert counted == PartStatistics(4, 4, 3, 2, {"a": 2, "b": 2, "c": 0})
    other = PartStatistics(1, 1, 1, 0, {"a": 0, "b": 0, "c": 7})
    assert distance(counted, counted) == 0 and distance(counted, other) == 1
    # between (1/2, 1/2, 0) and (1, 0, 0): m = (3/4, 1/4, 0); divergence in bits, its root
    a, b = np.array([0.5, 0.5]), np.array([0.75, 0.25])
    divergence = ((a * np.log2(a / b)).sum() + np.log2(1 / 0.75)) / 2
    assert distance(counted, PartStatistics(1, 3, 3, 0, {"a": 3, "b": 0, "c": 0})) == pytest.approx(divergence**0.5)


def test_the_ceiling_of_mini_masks(toy):
    folder = toy / "cityscapes"
    images = sorted((folder / "leftImg8bit/train").glob("*/*.png"))
    records = [record_of(image, folder / "gtFine/train", TEN) for image in images]
    # every object of these small images is smaller than the square, and so loses next to nothing
    fine, coarse = ceilings(records, TEN), ceilings(records, TEN, side=8)
    assert fine["all"].instances == sum(not a["iscrowd"] for r in records for a in r["annotations"])
    assert fine["all"].iou > 0.97 > coarse["all"].iou
    assert fine["all"].rap > coarse["all"].rap and list(coarse["all"].ap) == sorted(coarse["all"].ap, reverse=True)


def test_the_learning_rate_where_the_loss_falls_fastest():
    rates = [10.0**k for k in np.linspace(-5, 0, 51)]
    # a logistic fall around 1e-3, then an explosion
    losses = [1 / (1 + np.exp(4 * (np.log10(rate) + 3))) + (100 * rate if rate > 0.1 else 0) for rate in rates]
    assert np.log10(suggested_rate(rates, losses)) == pytest.approx(-3, abs=0.2)


def test_smaller_first_by_the_batch_then_by_the_size(tmp_path):
    config = tmp_path / "config.yaml"
    base = {
        "INPUT": {"MIN_SIZE_TRAIN": [80], "MAX_SIZE_TRAIN": 200},
        "MODEL": {"GAN": {"ENABLED": False, "MODE": "joint"}},
    }
    config.write_text(yaml.safe_dump({**base, "SOLVER": {"IMS_PER_BATCH": 2, "ACCUMULATE": 1}}))
    settings, sentences = {}, []
    while (step := shrunk(settings, config)) is not None:
        settings |= step[0]
        sentences.append(step[1])
    assert sentences == ["batches of 1, 2 of them a step", "images of 64 pixels"]
    assert settings["INPUT.MAX_SIZE_TRAIN"] == 150


def test_a_paused_trial_is_promoted_in_place():
    from cityscapes_tuning.search.table import Wanted

    table = Table(optuna.storages.InMemoryStorage(), "study")
    table.want([Wanted("fine", "a", {"lr": 0.1}, {}, 3)])
    table.begin(table.rows("fine")["a"])
    table.note(table.rows("fine")["a"], values={"3": 1.5}, done=3)
    row = table.rows("fine")["a"]
    assert row.is_ready and row.status == "paused" and row.value == 1.5
    table.want([Wanted("fine", "a", {"lr": 0.1}, {}, 9)])
    table.want([Wanted("fine", "a", {"lr": 0.1}, {}, 3)])
    row = table.rows("fine")["a"]
    assert (row.iterations, row.status, row.value_at(3)) == (9, "promoted", 1.5)
    table.close(row, optuna.trial.TrialState.PRUNED)
    assert table.rows("fine")["a"].status == "pruned" and len(table.rows("fine")) == 1
