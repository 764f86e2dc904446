"""A run on the command line: its folder, its log, its data, its loop."""

import argparse
from collections.abc import Callable
from pathlib import Path

from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from yacs.config import CfgNode

from gan_plugin.engine.image_loop import ImageLoop
from gan_plugin.engine.run_dir import claim_folder, look_up
from gan_plugin.errors import explanations_logged

from .data import open_data
from .shape_training import build_shape_loop, write_bank
from .training import build_loop

# what the weights and optimizers of a checkpoint depend on; a resumed run cannot change it
_FIXED = (
    "GAME",
    "INPUT.SIZE",
    "INPUT.CLASSES",
    "MODEL.GENERATOR.NAME",
    "MODEL.GENERATOR.WIDTH",
    "MODEL.GENERATOR.DOWNS",
    "MODEL.GENERATOR.BLOCKS",
    "MODEL.GENERATOR.UPSAMPLE",
    "MODEL.DISCRIMINATOR.NAME",
    "MODEL.DISCRIMINATOR.WIDTH",
    "MODEL.REF_DISCRIMINATOR.ENABLED",
    "SOLVER.OPTIMIZER",
)


def train_gan(cfg: CfgNode, args: argparse.Namespace, *, resume: bool) -> None:
    """Train the inpainting game of `cfg` in OUTPUT_DIR, or continue it.

    Raises:
        UserError: data or folder cannot be used, or the run diverges.
    """
    data = open_data(cfg)
    cfg = _with_classes(cfg, data.classes)
    _train(cfg, args, lambda: build_loop(cfg, data), resume)


def train_shapes(cfg: CfgNode, args: argparse.Namespace, *, resume: bool) -> None:
    """Train the game of masks or base tiles, and draw a bank of masks if `args.bank` says so; errors as above."""
    loop = _train(cfg, args, lambda: build_shape_loop(cfg), resume)
    if getattr(args, "bank", 0) > 0 and comm.is_main_process():
        write_bank(loop, cfg, args.bank, Path(cfg.OUTPUT_DIR) / "bank")


def _train(cfg: CfgNode, args: argparse.Namespace, build: Callable[[], ImageLoop], resume: bool) -> ImageLoop:
    if comm.is_main_process():
        fixed = {key: look_up(cfg, key) for key in _FIXED}
        claim_folder(cfg.OUTPUT_DIR, fixed, resume=resume, eval_only=False)
    comm.synchronize()
    default_setup(cfg, args)
    for name in ("gan_plugin", "coigan"):
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name=name)
    with explanations_logged():
        loop = build()
        loop.resume_or_load(resume=resume)
        loop.train()
    return loop


def _with_classes(cfg: CfgNode, classes: tuple[str, ...]) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.CLASSES = tuple(classes)
    cfg.freeze()
    return cfg
