"""From a config and prepared data to a finished run: its folder, its log, its loop."""

import argparse
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from yacs.config import CfgNode

from coigan.batch import Batch
from coigan.config import get_cfg
from coigan.data.placer import Placement
from coigan.data.samples import MaskNoise, SampleMapper, TrainingData, noise_of, open_data
from coigan.engine.game import InpaintingGame, build_game
from coigan.engine.shapes import build_shape_loop, write_bank
from coigan.evaluation.crops import can_score, score_painter
from coigan.evaluation.protocol import as_bytes, painted_batches, real_features
from coigan.modeling.build import choose_device
from gan_plugin.config_files import flat
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.engine.image_game import Evaluate, ImageGame, ImageLoop, ImageLoopOptions
from gan_plugin.engine.run_dir import begin_run, claim_folder, save_config, values_of
from gan_plugin.engine.train_loader import ResumableTrainLoader
from gan_plugin.errors import UserError, explanations_logged
from gan_plugin.evaluation.image_features import build_extractor, extract, extractor_label
from gan_plugin.evaluation.image_scores import score
from gan_plugin.modeling.timm_weights import lite0_or_random

_logger = logging.getLogger(__name__)
_PREVIEWS = 4
# after the label of a network, in metrics.json
_CROPS = "-crops"
_EVALUATION_SEED = 10_000


def build_loop(cfg: CfgNode, data: TrainingData) -> ImageLoop:
    """The training loop of `cfg`, not yet started.

    Raises:
        UserError: the processes do not divide the batch, or a value of the config cannot work.
    """
    solver = cfg.SOLVER
    if solver.IMS_PER_BATCH % comm.get_world_size():
        raise UserError(f"SOLVER.IMS_PER_BATCH is {solver.IMS_PER_BATCH}; make it a multiple of the processes.")
    game = build_game(cfg, len(data.classes))
    with preserved_rng(seed=cfg.SEED):
        game.set_preview([data.draw(number) for number in range(_PREVIEWS)])
    loader = ResumableTrainLoader(
        # order and content of a sample come from its position in the stream; there is no list of samples to choose from
        [{"number": number} for number in range(solver.IMS_PER_BATCH)],
        SampleMapper(data.draw),
        seed=cfg.SEED,
        total_batch_size=solver.IMS_PER_BATCH,
        num_workers=solver.NUM_WORKERS,
        aspect_ratio_grouping=False,
    )
    evaluate = _evaluator(cfg, data) if cfg.TEST.EVAL_PERIOD > 0 else None
    label = extractor_label(cfg.TEST.INCEPTION, cfg.TEST.FEATURES)
    prefix = "ema/" if solver.EMA_DECAY > 0 else ""
    best = {f"-{prefix}{label}/FID": "fid"} if evaluate else {}
    if evaluate and data.prepared is not None and can_score(data.prepared, cfg.TEST.IMAGES):
        # whole pictures hardly see the defects
        best[f"-{prefix}{label}{_CROPS}/FID"] = "crop_fid"
    options = ImageLoopOptions(
        output_dir=cfg.OUTPUT_DIR,
        max_iter=solver.MAX_ITER,
        amp=solver.AMP,
        ema_decay=solver.EMA_DECAY,
        checkpoint_period=solver.CHECKPOINT_PERIOD,
        keep=solver.KEEP,
        eval_period=cfg.TEST.EVAL_PERIOD,
        best=best,
        sample_period=solver.SAMPLE_PERIOD,
        write_period=solver.WRITE_PERIOD,
        histogram_period=cfg.SOLVER.HISTOGRAM_PERIOD,
    )
    _logger.info(f"Classes: {', '.join(data.classes)}. Perceptual losses by {game.features_title}.")
    return ImageLoop(game, loader, options, evaluate=evaluate)


def _evaluator(cfg: CfgNode, data: TrainingData) -> Evaluate:
    extractor = build_extractor(cfg.TEST.INCEPTION, choose_device(cfg.DEVICE), cfg.TEST.FEATURES)
    count, batch = cfg.TEST.IMAGES, cfg.TEST.BATCH
    cache = Path(cfg.OUTPUT_DIR) / "reference"

    def evaluate(game: ImageGame, folder: str) -> Mapping[str, Any]:
        assert isinstance(game, InpaintingGame)
        was_training = game.training
        game.eval()
        try:
            real = real_features(data.test_tiles, cfg.INPUT.SIZE, extractor, count=count, cache=cache)
            batches = painted_batches(
                game.paint, data.draw, game.device, count=count, batch=batch, seed=_EVALUATION_SEED
            )
            results: dict[str, Any] = score(real, extract(extractor, batches)).results()
            if data.prepared is not None:
                paint = partial(_paint, game, noise_of(cfg))
                crops = score_painter(cfg, data.prepared, paint, extractor, count=count, cache=cache)
                results |= {f"{extractor.label}{_CROPS}": crops} if crops else {}
            return results
        finally:
            game.train(was_training)

    return evaluate


def _paint(game: InpaintingGame, noise: MaskNoise, image: np.ndarray, placement: Placement, seed: int) -> np.ndarray:
    """What the game's generator makes of a picture, (H, W, 3) uint8, at its present weights."""
    masks = torch.from_numpy(placement.masks)[None].float()
    base = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    noisy = noise(masks[0], torch.Generator().manual_seed(seed))[None]
    inputs = torch.cat([base, noisy], 1)
    base, inputs, masks = (each.to(game.device) for each in (base, inputs, masks))
    with preserved_rng(seed=seed % 2**32), torch.no_grad():
        painted = game.paint(Batch(base, inputs, masks, base.new_zeros(1, 0), None))
    return as_bytes(painted)[0].permute(1, 2, 0).cpu().numpy()


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
