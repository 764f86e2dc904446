"""Whatever MODEL.GAN holds: one step of training with finite losses, or a sentence that names the key."""

import math
import re
from collections import Counter

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import AGNOSTIC, BOTH_PLAYERS, CASCADE, POINT_REND, small

from gan_plugin.engine.check_config import NonFiniteLossError, check_values, refuse_unsupported
from gan_plugin.engine.optimizers import build_discriminator_optimizer, build_generator_optimizer
from gan_plugin.engine.steps import AlternatingStep, JointStep
from gan_plugin.errors import UserError
from gan_plugin.modeling.discriminators import DISCRIMINATOR_REGISTRY
from gan_plugin.modeling.meta_arch import discriminator_parameters
from gan_plugin.modeling.objectives import OBJECTIVE_REGISTRY

OBJECTIVES = sorted(name for name, _ in OBJECTIVE_REGISTRY)
NORMS = ["BN", "GN", "SyncBN", ""]
BAD_AMOUNTS = [-0.5, math.nan, math.inf]

# key below MODEL.GAN: (values that may work, values that cannot)
KEYS = {
    "ENABLED": ([True] * 5 + [False], []),
    "MODE": (["joint", "alternating"], ["both"]),
    "ORDER": (["thesis", "paper"], [""]),
    "START_ITER": ([0, 0, 1], [-1]),
    "WARMUP_ITERS": ([0, 3], [-2]),
    "DISC_LR_FACTOR": ([0.0, 0.5, 2.0], BAD_AMOUNTS),
    "DISC_STEPS": ([1, 2], [0, -1]),
    "GATE_ACCURACY": ([0.0, 0.3, 0.9], [-0.1, 1.0, math.nan]),
    "DIFFAUG": (["", "flip", "translation,cutout,flip", "colour"], ["sharpen", "flip;cutout"]),
    "ROI_POOLING": (["level", "max"], ["mean"]),
    "VIS_PERIOD": ([0, 1], [-1]),
    "MASK.ENABLED": ([True, True, False], []),
    "MASK.DISCRIMINATOR": (
        sorted(name for name, _ in DISCRIMINATOR_REGISTRY if "Mask" in name),
        ["BoxFeatureDiscriminator", "Critic", ""],
    ),
    "MASK.OBJECTIVE": (OBJECTIVES, ["Hinch", ""]),
    "MASK.WEIGHT": ([0.0, 1.0], BAD_AMOUNTS),
    "MASK.REC_WEIGHT": ([0.0, 100.0], BAD_AMOUNTS),
    "MASK.INPUT_SIZE": ([8, 16, 28, 32], [0, -4]),
    "MASK.CHANNELS": ([(4, 4), (4, 6, 8), (4, 4, 4, 4), (5,) * 5], [(), (4, 0), (-1, 4), ("a", 4)]),
    "MASK.NORM": (NORMS, ["XN"]),
    "MASK.FAKE": (["soft", "straight_through"], ["hard"]),
    "MASK.REAL": (["binary", "antialiased"], ["soft"]),
    "MASK.INSTANCE_NOISE": ([0.0, 0.5], BAD_AMOUNTS),
    "MASK.MATCHING": (["proposal", "greedy"], ["best"]),
    "MASK.MATCH_IOU": ([0.0, 0.3, 1.0], [-0.1, 1.5, math.nan]),
    "BOX.ENABLED": ([True, True, False], []),
    "BOX.DISCRIMINATOR": (["BoxFeatureDiscriminator"], ["PixelMaskDiscriminator", "Critic"]),
    "BOX.OBJECTIVE": (OBJECTIVES, ["hinge"]),
    "BOX.WEIGHT": ([0.0, 0.025], BAD_AMOUNTS),
    "BOX.INPUT_SIZE": ([1, 5, 7], [0]),
    "BOX.CHANNELS": ([(4,), (8, 4), (4, 4, 4, 4)], [(), (0,)]),
    "BOX.NORM": (NORMS, ["bn"]),
    "BOX.INSTANCE_NOISE": ([0.0, 0.1], BAD_AMOUNTS),
    "BALANCE.SHARE": ([0.0, 0.1, 1.0], BAD_AMOUNTS),
    "BALANCE.MAX_FACTOR": ([0.0, 100.0, math.inf], [-1.0, math.nan]),
    "REG.R1_GAMMA": ([0.0, 10.0], BAD_AMOUNTS),
    "REG.GP_WEIGHT": ([0.0, 10.0], BAD_AMOUNTS),
    "REG.EVERY": ([1, 16], [0, -3]),
    "REG.SPECTRAL_NORM": ([True, False], []),
    "LABELS.REAL": ([(0.7, 1.2), (1, 1)], [(1.0, 0.5), (1.0,), (math.nan, 1.0), (0.0, math.inf), ("a", "b")]),
    "LABELS.FAKE": ([(0.0, 0.3), (0.0, 0.0)], [(0.3, 0.0), ()]),
    "LABELS.FLIP_PROB": ([0.0, 0.5, 1.0], [-0.1, 1.1, math.nan]),
}


@st.composite
def nodes(draw):
    """Some keys with values that may work; in half of the cases one key with a value that cannot."""
    chosen = draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=14, unique=True))
    node = {key: draw(st.sampled_from(KEYS[key][0])) for key in chosen}
    if draw(st.booleans()):
        spoiled = draw(st.sampled_from(sorted(key for key, (_, bad) in KEYS.items() if bad)))
        node[spoiled] = draw(st.sampled_from(KEYS[spoiled][1]))
    return node


def apply(cfg, node):
    for key, value in node.items():
        *path, leaf = key.split(".")
        (cfg.MODEL.GAN[path[0]] if path else cfg.MODEL.GAN)[leaf] = value


def train_one_step(cfg, inputs):
    """As AdversarialTrainer would; returns the scalars of the step."""
    check_values(cfg)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    refuse_unsupported(cfg, model)
    gan, disc = cfg.MODEL.GAN, discriminator_parameters(model)
    if gan.ENABLED and gan.MODE == "alternating":
        optimizers = build_generator_optimizer(cfg, model, exclude=disc), build_discriminator_optimizer(cfg, disc)
        step = AlternatingStep(model, [inputs], *optimizers, gan.ORDER, gan.DISC_STEPS)
    else:
        step = JointStep(model, [inputs], build_generator_optimizer(cfg, model))
    step.iter = 0
    with EventStorage(0) as storage:
        step.run_step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    return {name: value for name, (value, _) in storage.latest().items()}


@pytest.fixture
def outcomes():
    """How many configs trained, and how many were refused; a test that sees one side only proves nothing."""
    seen = Counter()
    yield seen
    assert min(seen["trained"], seen["refused"]) > 40, seen


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    node=nodes(), heads=st.sampled_from([{}, AGNOSTIC, CASCADE, POINT_REND]), instances=st.sampled_from([0, 1, 2, 2])
)
def test_any_config_trains_a_step_or_names_its_key(tiny_cfg, make_inputs, outcomes, node, heads, instances):
    cfg = small(tiny_cfg, BOTH_PLAYERS, heads)
    cfg.SOLVER.OPTIMIZER = "sgd"
    apply(cfg, node)
    is_impossible = any(value in KEYS[key][1] for key, value in node.items())
    try:
        scalars = train_one_step(cfg, make_inputs(1, instances=instances, side=64))
    except NonFiniteLossError:
        raise AssertionError(f"diverged in its first step: {node}") from None
    except UserError as error:
        named = re.findall(r"MODEL\.GAN\.([A-Z0-9_.]*[A-Z0-9])", str(error))
        assert named and all(key in KEYS for key in named), (str(error), node)
        outcomes["refused"] += 1
    else:
        losses = {name: value for name, value in scalars.items() if "loss" in name}
        assert losses and all(math.isfinite(value) for value in losses.values()), losses
        assert not is_impossible or not cfg.MODEL.GAN.ENABLED or has_no_say(node), node
        outcomes["trained"] += 1


def has_no_say(node):
    """Whether what is wrong belongs to a player that is switched off."""
    off = {player for player in ("MASK", "BOX") if node.get(f"{player}.ENABLED") is False}
    wrong = [key for key, value in node.items() if value in KEYS[key][1]]
    return all(key.split(".")[0] in off for key in wrong) or off == {"MASK", "BOX"}


@pytest.mark.parametrize("key", [key for key, (_, bad) in KEYS.items() if bad])
def test_an_impossible_value_is_refused_by_its_full_name(tiny_cfg, key):
    for value in KEYS[key][1]:
        cfg = small(tiny_cfg, BOTH_PLAYERS)
        apply(cfg, {key: value})
        with pytest.raises(UserError) as caught:
            check_values(cfg)
            build_model(cfg)
        assert re.search(rf"MODEL\.GAN\.{re.escape(key)}\b", str(caught.value)), caught.value
