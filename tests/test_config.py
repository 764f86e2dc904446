"""Config keys and config files: nothing dead, nothing that does not load."""

import math
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.engine import default_argument_parser
from detectron2.modeling import build_backbone
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_plugin import AdversarialTrainer, add_gan_config
from gan_plugin.config import RULES
from gan_plugin.data.builtin import prepare_datasets
from gan_plugin.engine.check_config import check_values
from gan_plugin.engine.optimizers import build_generator_optimizer
from gan_plugin.engine.setup import load_config
from gan_plugin.errors import UserError
from gan_plugin.rules import FREE

ROOT = Path(__file__).resolve().parents[1]
# no config, but the second of two bases
PLAYERS = ROOT / "configs/quick_schedules/feature_players.yaml"
CONFIGS = sorted({*(ROOT / "configs").rglob("*.yaml")} - {PLAYERS})
RUNNABLE = [path for path in CONFIGS if not path.name.startswith("Base-")]


class RecordingNode(CfgNode):
    """Remembers which leaves were read."""

    def __getattr__(self, name):
        value = super().__getattr__(name)
        if name in self and not isinstance(value, CfgNode):
            READ.add(f"{self.__dict__.get('path', '')}.{name}")
        return value


READ: set[str] = set()


def recording(node, path):
    copy = RecordingNode()
    copy.__dict__["path"] = path
    for key, value in node.items():
        # yacs would turn nested nodes into new ones, which know no path
        dict.__setitem__(copy, key, recording(value, f"{path}.{key}") if isinstance(value, CfgNode) else value)
    return copy


def leaves(node, path):
    for key, value in node.items():
        yield from leaves(value, f"{path}.{key}") if isinstance(value, CfgNode) else [f"{path}.{key}"]


def test_every_key_is_read(run_cfg, pedestrians, monkeypatch):
    """Build everything in each mode with nodes that remember what was read of them."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(pedestrians))
    stock, ours = get_cfg(), get_cfg()
    add_gan_config(ours)
    added = set(leaves(ours, "")) - set(leaves(stock, ""))
    READ.clear()
    run_cfg.MODEL.GAN.EMA.DECAY = 0.9
    run_cfg.DATASETS.TEST = ("penn_fudan_val",)
    run_cfg.MODEL.ROI_HEADS.NAME = "AdversarialROIHeads"
    run_cfg.MODEL.GAN.BOX.ENABLED = True
    run_cfg.MODEL.GAN.MASK.BOX_ONLY, run_cfg.DATASETS.MASK_SHARE = True, 0.5
    run_cfg.MODEL.GAN.UNPAIRED.PROJECTION_WEIGHT = run_cfg.MODEL.GAN.UNPAIRED.TEACHER_WEIGHT = 1.0
    for mode, optimizer in (("joint", "adam"), ("alternating", "adam"), ("alternating", "sgd")):
        run_cfg.MODEL.GAN.MODE, run_cfg.SOLVER.DISC.OPTIMIZER = mode, optimizer
        cfg = recording(run_cfg, "")
        prepare_datasets(cfg, train=True)
        trainer = AdversarialTrainer(cfg)
    trainer.train()
    run_cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    build_backbone(recording(run_cfg, ""))
    assert len(added) > 30
    assert added - READ == set()


# what only a later step can judge: names of a registry, a file or a layer, and seeds, of which each is a good one
JUDGED_LATER = {
    *(f"MODEL.GAN.{player}.{key}" for player in ("MASK", "BOX") for key in ("DISCRIMINATOR", "OBJECTIVE")),
    *("MODEL.GAN.DIFFAUG", "MODEL.GAN.MASK.LOGITS", "MODEL.TIMM.NAME", "MODEL.TIMM.PRETRAINED", "TEST.BEST_METRIC"),
    *("DATASETS.COCO_JSON", "DATASETS.PENN_FUDAN.SEED", "DATASETS.SUBSETS.SEED"),
}
NO_NUMBERS = st.text() | st.none() | st.tuples(st.integers())
BROKEN = st.sampled_from([math.nan, math.inf, -math.inf]) | st.floats(max_value=0, exclude_max=True) | NO_NUMBERS
OUT_OF_0_TO_1 = st.floats(max_value=0, exclude_max=True) | st.floats(min_value=1, exclude_min=True) | NO_NUMBERS
FRACTIONS = st.floats(0.01, 9).filter(lambda value: value % 1)
# the end of a sentence about a key -> values that it excludes
REFUSED = {
    "True or False": st.integers(2) | st.text() | st.none(),
    "a finite number, 0 or more": BROKEN,
    "a number, 0 or more": BROKEN.filter(lambda value: value != math.inf),
    "a whole number, 0 or more": st.integers(max_value=-1) | FRACTIONS | NO_NUMBERS,
    "a whole number, 1 or more": st.integers(max_value=0) | FRACTIONS | NO_NUMBERS,
    "a number from 0 to 1": OUT_OF_0_TO_1,
    "a probability from 0 to 1": OUT_OF_0_TO_1,
    "a number from 0.5 to 1": OUT_OF_0_TO_1 | st.floats(0, 0.5, exclude_max=True),
    "0 for none, or a number below 1": OUT_OF_0_TO_1 | st.just(1),
    "two numbers in [0, 1)": st.tuples(st.floats(0, 0.9)) | st.tuples(st.floats(0, 0.9), OUT_OF_0_TO_1) | st.just(0.9),
    "two finite numbers, the lower one first": st.tuples(st.floats(0.5, 1), st.floats(0, 0.4) | st.just(math.inf))
    | st.tuples(st.text(), st.text())
    | NO_NUMBERS,
    "one or more positive whole numbers": st.just(())
    | st.tuples(st.integers(1), st.integers(max_value=0) | FRACTIONS | st.text())
    | st.integers(),
    "three numbers of images, not all of them 0": st.just((0, 0, 0))
    | st.tuples(st.integers(0, 9), st.integers(0, 9))
    | st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(max_value=-1) | FRACTIONS),
    "levels from 0 up in ascending order": st.just(())
    | st.integers(0, 5).map(lambda level: (level, level))
    | st.integers(0, 5).map(lambda level: (level, level - 1)),
}


def our_config():
    cfg = get_cfg()
    add_gan_config(cfg)
    cfg.MODEL.MASK_ON, cfg.MODEL.DEVICE = True, "cpu"
    return cfg


def test_every_key_has_a_rule_or_is_judged_later():
    stock = set(leaves(get_cfg(), ""))
    assert {key.removeprefix(".") for key in leaves(our_config(), "") if key not in stock} == set(RULES)
    assert {key for key, rule in RULES.items() if rule is FREE} == JUDGED_LATER
    assert all(rule.known or rule is FREE or rule.expected in REFUSED for rule in RULES.values())


def test_the_defaults_are_allowed():
    cfg = our_config()
    cfg.freeze()
    check_values(cfg)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(set(RULES) - JUDGED_LATER)), st.data())
def test_a_value_against_the_rule_is_refused_at_the_start(key, data):
    rule, cfg = RULES[key], our_config()
    lower = {str(known).lower() for known in rule.known}
    values = st.text().filter(lambda value: value.lower() not in lower) if rule.known else REFUSED[rule.expected]
    value, (*path, leaf) = data.draw(values), key.split(".")
    node = cfg
    for part in path:
        node = node[part]
    node[leaf] = value
    with pytest.raises(UserError) as caught:
        check_values(cfg)
    said = "which is unknown; " if rule.known else f"; set it to {rule.expected}."
    assert str(caught.value).startswith(f"{key} is {value!r}") and said in str(caught.value)


def load(path):
    return load_config(default_argument_parser().parse_args(["--config-file", str(path)]))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_config_loads(path):
    cfg = load(path)
    assert cfg.MODEL.META_ARCHITECTURE == "AdversarialRCNN"


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.name)
def test_config_opens_with_its_launch_command(path):
    opening = path.read_text().split("\n#\n")[0]
    assert "tools/train_net.py" in opening and str(path.relative_to(ROOT)) in opening


@pytest.mark.parametrize("path", [p for p in RUNNABLE if p.name.startswith("mask_rcnn")], ids=lambda path: path.name)
def test_baseline_is_one_switch_away(path):
    plain, adversarial = load(path).clone(), load(path.with_name(f"gan_{path.name}"))
    assert not plain.MODEL.GAN.ENABLED
    plain.defrost()
    plain.MODEL.GAN.ENABLED, plain.OUTPUT_DIR = True, adversarial.OUTPUT_DIR
    assert plain == adversarial


SOURCES = ("thesis", "paper")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_only_what_is_named_after_its_source_takes_weights_absolutely(path):
    """What a config does to a model that has learnt is decided by the share; a tenth was measured (safety.md)."""
    share = load(path).MODEL.GAN.BALANCE.SHARE
    assert share == 0 if path.parent.name in SOURCES else share == 0.1


def test_lazy_configs_and_the_three_keys_of_the_readme_are_as_safe():
    for path in (ROOT / "configs/lazy").glob("*.py"):
        adversaries = LazyConfig.load(str(path)).model.adversaries
        shares = [adversaries[player].balance.share for player in ("mask", "box") if player in adversaries]
        assert shares and set(shares) == {0.1}, path
    (keys,) = (
        text for text in re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "GAN" in text
    )
    cfg = get_cfg()
    add_gan_config(cfg)
    cfg.merge_from_other_cfg(CfgNode.load_cfg(keys))
    gan = cfg.MODEL.GAN
    assert (gan.ENABLED, gan.BALANCE.SHARE, gan.MASK.WEIGHT, gan.MASK.REC_WEIGHT) == (True, 0.1, 1, 100)


def test_the_thesis_config_has_the_numbers_of_the_thesis():
    cfg = load(ROOT / "configs/thesis/gan_mask_rcnn_cityscapes.yaml")
    gan, solver = cfg.MODEL.GAN, cfg.SOLVER
    assert (solver.BASE_LR, solver.MOMENTUM, solver.WEIGHT_DECAY, solver.GAMMA) == (5e-3, 0.9, 5e-4, 0.1)
    assert (solver.DISC.OPTIMIZER, solver.DISC.BASE_LR, solver.DISC.BETAS) == ("adam", 0.2e-4, (0.5, 0.999))
    assert (gan.MODE, gan.ORDER, gan.MASK.OBJECTIVE) == ("alternating", "thesis", "NonSaturatingBCE")
    assert (gan.MASK.WEIGHT, gan.MASK.REC_WEIGHT, gan.MASK.MATCHING) == (1, 100, "greedy")
    assert (gan.MASK.INPUT_SIZE, gan.MASK.CHANNELS) == (128, (64, 128, 128, 256, 512, 1024))
    assert (gan.LABELS.REAL, gan.LABELS.FAKE, gan.LABELS.FLIP_PROB) == ((0.7, 1.2), (0.0, 0.3), 0.05)
    epoch = 2975 // solver.IMS_PER_BATCH + 1
    assert list(solver.STEPS) == [3 * epoch, 6 * epoch, 9 * epoch]


def test_the_paper_config_has_the_setting_of_the_released_code():
    cfg = load(ROOT / "configs/paper/gan_mask_rcnn_cityscapes.yaml")
    gan, solver = cfg.MODEL.GAN, cfg.SOLVER
    assert (cfg.MODEL.RESNETS.DEPTH, cfg.INPUT.MIN_SIZE_TRAIN, solver.IMS_PER_BATCH) == (101, (400,), 8)
    assert (solver.MAX_ITER, solver.STEPS, solver.BASE_LR, solver.WEIGHT_DECAY) == (54000, (36000, 48000), 0.01, 1e-4)
    assert (solver.DISC.OPTIMIZER, solver.DISC.BASE_LR, solver.DISC.SCHEDULE) == ("sgd", 0.01 / 5, "follow")
    assert (gan.MASK.WEIGHT, gan.MASK.REC_WEIGHT, gan.BOX.WEIGHT, gan.ORDER) == (0.5, 0, 0.025, "paper")
    assert (gan.MASK.DISCRIMINATOR, gan.MASK.OBJECTIVE) == ("MaskedFeatureDiscriminator", "MultiLayerL1")
    assert (gan.MASK.INPUT_SIZE, gan.MASK.CHANNELS) == (28, (64, 128, 256, 512, 1024))
    assert (gan.BOX.OBJECTIVE, gan.BOX.CHANNELS) == ("NonSaturatingBCE", (64, 128, 256, 512))


def define(cfg):
    """What other projects define, some under our names."""
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    cfg.SOLVER.DISC = CfgNode({"BASE_LR": 0.5})
    cfg.TEST.BEST_METRIC = "bbox/AP"
    cfg.DATASETS.SUBSETS = CfgNode({"SEED": 7})


@pytest.mark.parametrize("first, second", [(define, add_gan_config), (add_gan_config, define)])
def test_what_another_project_defines_stays_in_either_order(first, second):
    cfg = get_cfg()
    first(cfg)
    second(cfg)
    add_gan_config(cfg)
    assert (cfg.SOLVER.OPTIMIZER, cfg.TEST.BEST_METRIC) == ("ADAMW", "bbox/AP")
    assert (cfg.SOLVER.DISC.BASE_LR, cfg.DATASETS.SUBSETS.SEED) == (0.5, 7)
    # and ours are all there beside them
    ours = get_cfg()
    add_gan_config(ours)
    assert set(leaves(cfg, "")) == set(leaves(ours, ""))
    optimizer = build_generator_optimizer(cfg, torch.nn.Linear(2, 2))
    assert type(optimizer) is torch.optim.AdamW


def test_a_value_where_we_have_a_group_of_keys_is_a_sentence():
    cfg = get_cfg()
    cfg.SOLVER.DISC = 0.1
    with pytest.raises(UserError, match=r"SOLVER\.DISC = 0\.1"):
        add_gan_config(cfg)
