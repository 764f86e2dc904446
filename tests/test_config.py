"""Config keys and config files: nothing dead, nothing that does not load."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser

from gan_plugin import AdversarialTrainer, add_gan_config
from gan_plugin.config import CHOICES
from gan_plugin.data.builtin import prepare_datasets
from gan_plugin.engine.optimizers import build_generator_optimizer
from gan_plugin.engine.setup import load_config
from gan_plugin.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml"))
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
    run_cfg.MODEL.GAN.BOX.ENABLED = run_cfg.MODEL.GAN.BALANCE.ENABLED = True
    for mode, optimizer in (("joint", "adam"), ("alternating", "adam"), ("alternating", "sgd")):
        run_cfg.MODEL.GAN.MODE, run_cfg.SOLVER.DISC.OPTIMIZER = mode, optimizer
        cfg = recording(run_cfg, "")
        prepare_datasets(cfg, train=True)
        trainer = AdversarialTrainer(cfg)
    trainer.train()
    assert len(added) > 30
    assert added - READ == set()


def test_choices_are_keys_and_defaults_are_among_them():
    cfg = get_cfg()
    add_gan_config(cfg)
    for key, known in CHOICES.items():
        node = cfg
        for part in key.split("."):
            node = node[part]
        assert node in known, key


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


def test_thesis_settings_are_in_the_full_configs():
    cfg = load(ROOT / "configs/gan_mask_rcnn_cityscapes.yaml")
    gan, disc = cfg.MODEL.GAN, cfg.SOLVER.DISC
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.GAMMA) == (
        5e-3,
        0.9,
        5e-4,
        0.1,
    )
    assert (disc.OPTIMIZER, disc.BASE_LR, disc.BETAS) == ("adam", 0.2e-4, (0.5, 0.999))
    assert (gan.MODE, gan.ORDER, gan.MASK.OBJECTIVE, gan.MASK.REC_WEIGHT) == (
        "alternating",
        "thesis",
        "NonSaturatingBCE",
        100,
    )
    assert (gan.LABELS.REAL, gan.LABELS.FAKE, gan.LABELS.FLIP_PROB) == ((0.7, 1.2), (0.0, 0.3), 0.05)
    epoch = 2975 // cfg.SOLVER.IMS_PER_BATCH + 1
    assert list(cfg.SOLVER.STEPS) == [3 * epoch, 6 * epoch, 9 * epoch]


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
