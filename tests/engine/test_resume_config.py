"""What a resumed run must not change, and that a refusal changes nothing."""

import importlib
import re
from argparse import Namespace
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from car_gan.config import default_config as car_defaults
from car_gan.runs import training as car_training
from coigan.config import get_cfg as coigan_defaults
from coigan.engine import training as coigan_run
from detectron2.modeling import build_model

from gan_plugin import UserError
from gan_plugin.compat import MOVED
from gan_plugin.config_files import flat, look_up
from gan_plugin.engine import run_dir
from gan_plugin.engine.checkpoint import SafeCheckpointer
from gan_plugin.engine.lazy_config import as_yaml, build, fixed_values, is_fixed, load_lazy_config
from gan_plugin.engine.run_dir import FREE_KEYS, claim_folder, claim_output_dir, values_of
from gan_plugin.engine.setup import default_config


@pytest.fixture
def cfg(tmp_path):
    """A game's config whose run has left its first checkpoint and its config.yaml."""
    cfg = default_config()
    cfg.MODEL.GAN.ENABLED, cfg.OUTPUT_DIR = True, str(tmp_path / "run")
    begin(cfg, tmp_path / "run")
    return cfg


def begin(cfg, folder):
    folder.mkdir(exist_ok=True)
    (folder / "model_0000001.pth").write_bytes(b"a checkpoint")
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    (folder / "config.yaml").write_text(cfg.dump())


def other(value):
    """A value of the same type that is another one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    return type(value)([*value, 7])


def changed(cfg, key):
    cfg = cfg.clone()
    *path, leaf = key.split(".")
    node = cfg
    for part in path:
        node = node[part]
    node[leaf] = other(node[leaf])
    return cfg, node[leaf]


def without(node, key):
    *path, leaf = key.split(".")
    for part in path:
        node = node[part]
    node.pop(leaf, None)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_key_of_the_model_is_compared_or_free(cfg, tmp_path, monkeypatch):
    # one reading of the same bytes is enough
    monkeypatch.setattr(run_dir, "read_yaml", cache(run_dir.read_yaml))
    claim_output_dir(cfg, resume=True, eval_only=False)
    before, free = contents(tmp_path / "run"), set()
    keys = [*flat({"MODEL": cfg.MODEL}), "SOLVER.OPTIMIZER"]
    assert len(keys) > 180
    for key in keys:
        another, value = changed(cfg, key)
        try:
            claim_output_dir(another, resume=True, eval_only=False)
            free.add(next(name for name in FREE_KEYS if f"{key}.".startswith(f"{name}.")))
        except UserError as error:
            was, now = (repr(flat({"": v})[""])[:60] for v in (look_up(cfg, key), value))
            assert f"was begun with {key} {was}" in str(error) and now in str(error)
            assert str(tmp_path / "run/config.yaml") in str(error) and "another OUTPUT_DIR" in str(error)
    assert free == set(FREE_KEYS) and contents(tmp_path / "run") == before


def test_all_that_differ_are_counted_and_the_first_named(cfg):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.GAN.ORDER = 3, "paper"
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.PIXEL_MEAN = 8, 101, [0.0, 0.0, 0.0]
    with pytest.raises(UserError, match=r"MODEL.\S+ .*\(now .*\), MODEL.\S+ .*, MODEL.\S+ .*and 2 more keys; resume"):
        claim_output_dir(cfg, resume=True, eval_only=False)


def test_a_run_from_before_a_key_existed_did_what_is_its_default(cfg, tmp_path):
    """Whichever keys its config.yaml lacks; and another value than the default is told as a change."""
    keys = [key for key in flat({"MODEL": cfg.MODEL}) if key not in ("MODEL.GAN.ENABLED", *run_dir._FORMER)]
    for first in range(4):
        older = {"MODEL": yaml.safe_load(cfg.MODEL.dump())}
        for key in keys[first::4]:
            without(older, key)
        (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(older))
        claim_output_dir(cfg, resume=True, eval_only=False)
        for key in [key for key in keys[first::40] if key not in FREE_KEYS]:
            with pytest.raises(UserError, match=f"begun with {key} "):
                claim_output_dir(changed(cfg, key)[0], resume=True, eval_only=False)


def test_what_a_game_that_is_off_would_do_does_not_matter(cfg, tmp_path):
    cfg.MODEL.GAN.ENABLED = False
    begin(cfg, tmp_path / "run")
    cfg.MODEL.GAN.MASK.WEIGHT, cfg.SOLVER.DISC.OPTIMIZER = 3.0, "sgd"
    claim_output_dir(cfg, resume=True, eval_only=False)
    cfg.MODEL.GAN.EMA.DECAY = 0.5
    with pytest.raises(UserError, match=r"begun with MODEL.GAN.EMA.DECAY 0.0 \(now 0.5\)"):
        claim_output_dir(cfg, resume=True, eval_only=False)


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("OUTPUT_DIR: !!python/object/apply:os.mkdir [{trap}]", "would run Python code"),
        ("MODEL: [", "is wrong"),
        ("", "is damaged"),
    ],
)
def test_a_damaged_config_of_the_run_is_a_sentence(cfg, tmp_path, content, sentence):
    file, trap = tmp_path / "run/config.yaml", tmp_path / "trap"
    file.write_text(content.format(trap=trap))
    with pytest.raises(UserError, match=f"{re.escape(str(file))}.*{sentence}"):
        claim_output_dir(cfg, resume=True, eval_only=False)
    assert not trap.exists()


@pytest.mark.parametrize(
    "defaults, fixed, free, key",
    [
        (car_defaults, car_training._FIXED, car_training._FREE, "SOLVER.ORDER"),
        (coigan_defaults, coigan_run._FIXED, (), "MODEL.GENERATOR.UPSAMPLE"),
    ],
)
def test_the_projects_compare_their_whole_model_too(tmp_path, monkeypatch, defaults, fixed, free, key):
    cfg = defaults()
    begin(cfg, tmp_path)
    older = yaml.safe_load(cfg.dump())
    without(older, key)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(older))

    def claim(cfg):
        values = {name: value for name, value in values_of(cfg, fixed).items() if name not in free}
        claim_folder(str(tmp_path), values, flat(defaults()), resume=True, eval_only=False)

    claim(cfg)
    monkeypatch.setattr(run_dir, "read_yaml", cache(run_dir.read_yaml))
    for name in [key, *flat({"MODEL": cfg.MODEL})]:
        if name not in free:
            with pytest.raises(UserError, match=f"was begun with {name} "):
                claim(changed(cfg, name)[0])


class State:
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        raise AssertionError("loaded what does not fit")


@pytest.mark.parametrize(
    "key, value, sentence",
    [
        ("NUM_CLASSES", 5, r"cls_score.weight is \(3, 32\) there and \(6, 32\) here; .*and 10 more"),
        ("NAME", "Res5ROIHeads", "is not there"),
        (None, None, "holds weights alone"),
    ],
)
def test_a_checkpoint_of_its_own_run_that_does_not_fit_is_a_sentence(tiny_cfg, tmp_path, key, value, sentence):
    """For a resumed run only: initial weights may be of other classes."""
    tiny_cfg.MODEL.GAN.ENABLED = False
    folder = str(tmp_path)
    states = {} if key is None else {"trainer": State()}
    SafeCheckpointer(build_model(tiny_cfg), folder, **states).save("model_0000001")
    if key == "NUM_CLASSES":
        tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = value
    model = build_model(tiny_cfg)
    if key == "NAME":
        model.extra = torch.nn.Linear(1, 1)
    checkpointer = SafeCheckpointer(model, folder, trainer=State())
    with pytest.raises(UserError, match=sentence):
        checkpointer.resume_or_load("", resume=True)
    checkpointer.resume_or_load(f"{folder}/model_0000001.pth", resume=False)


def test_a_lazy_config_outlives_the_move_of_what_it_calls(tmp_path):
    """A run whose config.yaml calls everything where it once was: the file is read, and the run goes on."""
    file = Path(__file__).resolve().parents[2] / "configs/lazy/gan_mask_rcnn_cityscapes_feature.py"
    cfg = load_lazy_config(Namespace(config_file=str(file), opts=[]))
    former = as_yaml(cfg)
    for old, new in MOVED.items():
        assert importlib.import_module(old) is importlib.import_module(new)
        former = former.replace(f"{new}.", f"{old}.")
    assert sum(f"{old}." in former for old in MOVED) >= 3 and former != as_yaml(cfg)
    run = tmp_path / "run"
    begin(default_config(), run)
    (run / "config.yaml").write_text(former)
    read = load_lazy_config(Namespace(config_file=str(run / "config.yaml"), opts=[]))
    both = [build(one, "model.adversaries") for one in (cfg, read)]
    players = [[(name, repr(player)) for name, player in each.items()] for each in both]
    # in one order: an optimizer's state goes by that of the parameters
    assert players[0] == players[1] and [name for name, _ in players[0]] == ["mask", "box"]
    resume = {"owns": is_fixed, "resume": True, "eval_only": False}
    for now in (cfg, read):
        claim_folder(str(run), fixed_values(now), {}, **resume)
    cfg.model.adversaries.mask.objective._target_ = "gan_plugin.modeling.objectives.Hinge"
    with pytest.raises(UserError, match=r"objective\._target_ .*MultiLayerL1.*Hinge"):
        claim_folder(str(run), fixed_values(cfg), {}, **resume)
