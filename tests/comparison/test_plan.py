"""Arms, schedules, splits and plans."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from PIL import Image

from gan_plugin.comparison.arms import ARMS, arm_settings, controls_of, scaled_schedule
from gan_plugin.comparison.plan import Plan, extended, make_plan, make_split
from gan_plugin.comparison.run import key_values
from gan_plugin.engine.setup import load_config
from gan_plugin.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QUICK = CONFIGS / "quick_schedules"


def config(path, *options):
    return load_config(argparse.Namespace(config_file=str(path), opts=[str(option) for option in options]))


@pytest.fixture
def cfg(pedestrians, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(pedestrians))
    return config(QUICK / "gan_mask_rcnn_penn_fudan_quick.yaml")


def plan_of(cfg, **changes):
    options = {"arms": ["lsgan"], "seeds": [0, 1], "iterations": (50, 100), **changes}
    return make_plan(cfg, config_file="x.yaml", **options)


def test_a_schedule_keeps_its_shares():
    cfg = config(CONFIGS / "gan_mask_rcnn_cityscapes.yaml")
    # a third of 4464: steps at 1116, 2232, 3348; warm-up, start of the game and checkpoints after 372
    assert scaled_schedule(cfg, 1488) == {
        "SOLVER.MAX_ITER": 1488,
        "SOLVER.STEPS": [372, 744, 1116],
        "SOLVER.WARMUP_ITERS": 124,
        "SOLVER.CHECKPOINT_PERIOD": 124,
        "MODEL.GAN.START_ITER": 124,
        "MODEL.GAN.WARMUP_ITERS": 0,
        "TEST.EVAL_PERIOD": 0,
        "TEST.BEST_METRIC": "",
    }


def test_steps_that_collide_or_leave_the_run_are_dropped():
    cfg = config(CONFIGS / "gan_mask_rcnn_cityscapes.yaml")
    # of 2 iterations the steps are at 0.5, 1 and 1.5
    assert scaled_schedule(cfg, 2)["SOLVER.STEPS"] == [1]
    assert scaled_schedule(cfg, 2)["SOLVER.CHECKPOINT_PERIOD"] == 1


def test_the_runs_of_a_plan(cfg):
    runs = plan_of(cfg).runs()
    assert [run.name for run in runs] == [f"seed{s}/{arm}" for s in (0, 1) for arm in ("a", "baseline", "lsgan")]
    a, baseline, lsgan = runs[3:]
    assert (a.parent, baseline.parent, lsgan.parent) == (None, "seed1/a", "seed1/a")
    assert a.settings["MODEL.GAN.ENABLED"] is False and a.settings["DATASETS.TRAIN"] == ["penn_fudan_train_a"]
    assert (a.iterations, a.settings["SOLVER.MAX_ITER"], a.settings["SEED"]) == (50, 50, 1)
    # the config's game begins at 150 of 500 and rises for 50; model A has had its time without
    assert (lsgan.settings["MODEL.GAN.START_ITER"], lsgan.settings["MODEL.GAN.WARMUP_ITERS"]) == (0, 12)
    assert lsgan.settings["DATASETS.TRAIN"] == ["penn_fudan_train_b"]
    assert lsgan.settings["DATASETS.TEST"] == ["penn_fudan_val"] == a.settings["DATASETS.TEST"]
    shared = baseline.settings.keys() - ARMS["baseline"].settings.keys()
    assert {"SEED", "SOLVER.MAX_ITER", "DATASETS.TRAIN"} <= shared
    assert all(baseline.settings[key] == lsgan.settings[key] for key in shared)


@pytest.mark.parametrize("quick", ["gan_mask_rcnn_penn_fudan_quick.yaml", "mask_rcnn_cityscapes_quick.yaml"])
def test_every_arm_has_the_baselines_model_and_its_own_adversary(quick):
    weights = ("MODEL.TIMM.PRETRAINED", "")
    cfg = config(QUICK / quick, *weights)
    models = {}
    for arm, settings in arm_settings(ARMS, cfg).items():
        own = config(QUICK / quick, *key_values(settings), *weights)
        models[arm] = {name: tuple(weight.shape) for name, weight in build_model(own).state_dict().items()}
    assert models.keys() == ARMS.keys()
    for arm, weights in models.items():
        players = {name.split(".")[1] for name in weights if name.startswith("adversaries.")}
        plain = arm in ("baseline", "longer", "boxinst")
        assert players == (set() if plain else {"mask", "box"} if arm == "paper" else {"mask"})
        assert {k: v for k, v in weights.items() if not k.startswith("adversaries.")} == models["baseline"]


def test_the_papers_optimizer_goes_with_the_papers_generator():
    cfg = config(CONFIGS / "gan_mask_rcnn_cityscapes.yaml")
    settings = arm_settings(["paper"], cfg)["paper"]
    assert settings["SOLVER.DISC.BASE_LR"] == pytest.approx(0.005 / 5)
    assert settings["MODEL.GAN.MASK.CHANNELS"] == [64, 128, 256, 512, 1024]
    quick = arm_settings(["paper"], config(QUICK / "gan_mask_rcnn_cityscapes_quick.yaml"))["paper"]
    assert "SOLVER.DISC.BASE_LR" not in quick and quick["MODEL.GAN.BOX.CHANNELS"] == [16, 32, 64, 128]


def test_arms_named_after_a_source_have_its_weights():
    arms = arm_settings(["thesis", "paper", "bce"], config(QUICK / "gan_mask_rcnn_cityscapes_quick.yaml"))
    printed = {"thesis": (0, 1, 100), "paper": (0, 0.5, 0)}
    keys = [f"MODEL.GAN.{key}" for key in ("BALANCE.SHARE", "MASK.WEIGHT", "MASK.REC_WEIGHT")]
    assert {name: tuple(arms[name][key] for key in keys) for name in printed} == printed
    assert not set(keys) & arms["bce"].keys()
    full = config(CONFIGS / "thesis/gan_mask_rcnn_cityscapes.yaml")
    for key, value in arms["thesis"].items():
        node = full
        for part in key.split("."):
            node = node[part]
        assert node == (tuple(value) if isinstance(value, list) else value), key


def test_controls(cfg):
    """A frozen discriminator differs in its learning rate alone; a longer run in what counts iterations."""
    plan = plan_of(cfg, arms=["paper", "paper-frozen", "longer", "rec"], iterations=(50, 100))
    runs = {run.arm: run for run in plan.runs() if run.seed == 0}
    learning, frozen = runs["paper"].settings, runs["paper-frozen"].settings
    assert {key for key in frozen if frozen[key] != learning.get(key)} == {
        "SOLVER.DISC.BASE_LR",
        "MODEL.GAN.MODE",
        "MODEL.GAN.GATE_ACCURACY",
    }
    assert frozen["SOLVER.DISC.BASE_LR"] == 0 and frozen["MODEL.GAN.MODE"] == "alternating"
    assert {run.iterations for run in runs.values() if run.arm not in ("a", "longer")} == {100}
    assert runs["longer"].iterations == runs["longer"].settings["SOLVER.MAX_ITER"] == 150
    assert runs["longer"].settings["DATASETS.TEST"] == runs["paper"].settings["DATASETS.TEST"]
    assert controls_of("paper", plan.arms) == ["baseline", "paper-frozen", "longer", "rec"]
    assert controls_of("lsgan", plan.arms) == ["baseline", "longer", "rec"]
    assert not any(controls_of(arm, plan.arms) for arm in ("baseline", "paper-frozen", "longer", "rec"))
    for arm in ("baseline", "rec", "longer", "none"):
        with pytest.raises(UserError, match=f"'{arm}-frozen' is unknown; .* any adversary among them with -frozen"):
            plan_of(cfg, arms=[f"{arm}-frozen"])


def test_an_arm_with_the_losses_of_boxinst_beside_it(cfg):
    arms = ["boxinst", "crop", "crop-frozen", "boxinst-crop", "boxinst-crop-frozen", "boxinst-longer"]
    settings = arm_settings(arms, cfg, 100)
    losses = {f"MODEL.GAN.UNPAIRED.{name}_WEIGHT": 1.0 for name in ("PROJECTION", "PAIRWISE")}
    for arm in ("crop", "crop-frozen", "longer"):
        assert settings[f"boxinst-{arm}"] == {**arm_settings([arm], cfg, 100)[arm], **losses}
    assert controls_of("boxinst-crop", settings) == ["baseline", "boxinst", "boxinst-crop-frozen", "boxinst-longer"]
    with pytest.raises(UserError, match="'boxinst-none' is unknown; .* any of these with boxinst- before it"):
        arm_settings(["boxinst-none"], cfg)


def test_an_unknown_arm_lists_the_known(cfg):
    with pytest.raises(
        UserError,
        match="'lsgam' is unknown; --arms takes baseline, bce, lsgan, ",
    ):
        plan_of(cfg, arms=["lsgam"])


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"iterations": (0, 5)}, "--iters-a is 0"),
        ({"iterations": (5, -1)}, "--iters-b is -1"),
        ({"seeds": [0, -1]}, "--seeds is"),
        ({"sizes": (5, 0, 5)}, "leave a part of the data set empty"),
    ],
)
def test_numbers_out_of_range(cfg, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        plan_of(cfg, **changes)


def test_pedestrians_are_scaled_to_what_is_there(cfg):
    split = plan_of(cfg).split
    # 16 images in the proportion of 75, 75, 20
    assert (split.asked, split.used) == ([75, 75, 20], [7, 7, 2])


@pytest.fixture
def registered(tmp_path):
    """40 pictures of one object each under a name of their own."""
    mask = [[2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]]
    thing = {"bbox": [2, 2, 8, 8], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "segmentation": mask}
    records = [
        {"file_name": str(tmp_path / f"{i:02}.png"), "image_id": i, "width": 16, "height": 12, "annotations": [thing]}
        for i in range(40)
    ]
    for record in records:
        Image.new("RGB", (16, 12)).save(record["file_name"])
    DatasetCatalog.register("forty", lambda: records)
    MetadataCatalog.get("forty").set(thing_classes=["x"], evaluator_type="coco")
    yield "forty"
    for name in ("forty", "forty_a", "forty_b", "forty_eval"):
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


@pytest.mark.parametrize("train", ["forty", "forty_a"])
def test_any_other_set_has_its_subsets(cfg, registered, train):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TRAIN = (train,)
    split = make_split(cfg, (10, 8, 4))
    assert split.names == ["forty_a", "forty_b", "forty_eval"]
    assert split.used == [10, 8, 4] == list(cfg.DATASETS.SUBSETS.SIZES)


def test_two_sets_are_refused(cfg, registered):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TRAIN = ("forty", "penn_fudan_train_a")
    with pytest.raises(UserError, match="names 2: forty, penn_fudan"):
        make_split(cfg, None)


def test_a_plan_survives_its_file(cfg):
    plan = plan_of(cfg, arms=ARMS)
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_plan_takes_more_arms_and_seeds(cfg):
    more = extended(plan_of(cfg), plan_of(cfg, arms=["bce"], seeds=[4]), "folder")
    assert list(more.arms) == ["baseline", "lsgan", "bce"] and more.seeds == [0, 1, 4]


def test_a_plan_goes_on_after_the_plugin_has_got_new_keys(cfg):
    asked = plan_of(cfg)
    before = yaml.safe_load(asked.config)
    del before["MODEL"]["GAN"]["MASK"]["REACH"], before["MODEL"]["GAN"]["UNPAIRED"]
    former = replace(asked, config=yaml.safe_dump(before))
    assert extended(former, asked, "folder") == former
    changed = cfg.clone()
    changed.defrost()
    changed.MODEL.GAN.MASK.REACH = "head"
    with pytest.raises(UserError, match="MODEL.GAN.MASK.REACH 'all' .now 'head'."):
        extended(former, plan_of(changed), "folder")


def test_a_changed_plan_is_refused(cfg, monkeypatch):
    plan = plan_of(cfg)
    changed = cfg.clone()
    changed.defrost()
    changed.SOLVER.BASE_LR = 0.5
    for other, what in (
        (plan_of(cfg, iterations=(50, 101)), "--iters-b 100 .now 101"),
        (plan_of(cfg, sizes=(8, 6, 2)), "images asked .*now .8, 6, 2"),
        (plan_of(changed), "SOLVER.BASE_LR .* .now 0.5."),
    ):
        with pytest.raises(UserError, match=f"comparison that was begun with .*{what}.*; repeat it"):
            extended(plan, other, "folder")
    monkeypatch.setitem(ARMS, "lsgan", ARMS["hinge"])
    with pytest.raises(UserError, match="begun with arm lsgan: MODEL.GAN.MASK.OBJECTIVE 'LeastSquares' .now 'Hinge'."):
        extended(plan, plan_of(cfg), "folder")
