"""A run on the command line: its folder, its log, its data, its loop."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from detectron2.utils import comm
from yacs.config import CfgNode

from gan_plugin.config_files import flat
from gan_plugin.engine.image_game import ImageLoop
from gan_plugin.engine.run_dir import begin_run, claim_folder, save_config, values_of
from gan_plugin.errors import UserError, explanations_logged
from gan_plugin.modeling.timm_weights import lite0_or_random

from ..config import get_cfg
from .data import open_data
from .shape_training import build_shape_loop, write_bank
from .training import build_loop

_logger = logging.getLogger(__name__)
# what a checkpoint depends on; a resumed run cannot change it
_FIXED = (
    "GAME",
    "INPUT.SIZE",
    "INPUT.CLASSES",
    "MODEL",
    "SHAPES.SOURCE",
    "SHAPES.STYLE_SIZE",
    "SHAPES.MAPPING_LAYERS",
    "SHAPES.WIDTH",
    "SHAPES.CHANNEL_MULTIPLIER",
    "SOLVER.DISC_STEPS",
    "SOLVER.GEN_STEPS",
    "SOLVER.OPTIMIZER",
)


def train_gan(cfg: CfgNode, args: argparse.Namespace, *, resume: bool) -> None:
    """Train the inpainting game of `cfg` in OUTPUT_DIR, or continue it.

    Raises:
        UserError: data or folder cannot be used, or the run diverges.
    """
    data = open_data(cfg)
    cfg = _with_facts(cfg, data.classes)
    _train(cfg, args, lambda: build_loop(cfg, data), resume)


def train_shapes(cfg: CfgNode, args: argparse.Namespace, *, resume: bool) -> None:
    """Train the game of masks or base tiles, and draw a bank of masks if `args.bank` says so; errors as above."""
    bank = getattr(args, "bank", 0)
    if bank > 0 and cfg.SHAPES.SOURCE != "masks":
        raise UserError("--bank needs SHAPES.SOURCE masks; base tiles are no masks.")
    loop = _train(cfg, args, lambda: build_shape_loop(cfg), resume)
    if bank > 0 and comm.is_main_process():
        folder = Path(cfg.OUTPUT_DIR) / "bank"
        _logger.info(f"{write_bank(loop, cfg, bank, folder)} masks are in {folder}, for DATA.SHAPE_BANKS.")


def _train(cfg: CfgNode, args: argparse.Namespace, build: Callable[[], ImageLoop], resume: bool) -> ImageLoop:
    if comm.is_main_process():
        fixed, defaults = values_of(cfg, _FIXED), flat(get_cfg())
        claim_folder(cfg.OUTPUT_DIR, fixed, defaults, resume=resume, eval_only=False, weights_key="")
    comm.synchronize()
    begin_run(cfg.OUTPUT_DIR, args, cfg.dump(), "gan_plugin", "coigan", seed=cfg.SEED)
    with explanations_logged():
        loop = build()
        loop.resume_or_load(resume=resume)
        save_config(cfg.OUTPUT_DIR, cfg.dump())
        loop.train()
    return loop


def _with_facts(cfg: CfgNode, classes: tuple[str, ...]) -> CfgNode:
    """`cfg` with the classes, and with what "auto" means on this machine, so that a run keeps to it when it resumes."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.CLASSES = tuple(classes)
    if not cfg.TEST.INCEPTION:
        cfg.TEST.FEATURES = lite0_or_random(cfg.TEST.FEATURES, "TEST.FEATURES")
    if not cfg.LOSS.FEATURES.WEIGHTS:
        cfg.LOSS.FEATURES.NETWORK = lite0_or_random(cfg.LOSS.FEATURES.NETWORK, "LOSS.FEATURES.NETWORK")
    cfg.freeze()
    return cfg
