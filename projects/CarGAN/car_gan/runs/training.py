"""From a config to a trained GAN in OUTPUT_DIR."""

import json
import os
from pathlib import Path
from typing import Any

from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from fvcore.common.config import CfgNode
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from car_gan.config import default_config
from car_gan.crops.dataset import CropDataset, check_count, crops_of, licence_of, train_loader, with_labels
from car_gan.game import CarGame, build_game
from car_gan.networks.build import DISCRIMINATOR, GENERATOR, load_network, read_weights
from gan_plugin.config_files import flat
from gan_plugin.engine.checkpoint import LAST
from gan_plugin.engine.image_game import ImageLoop, ImageLoopOptions, Phase
from gan_plugin.engine.provenance import commit, versions
from gan_plugin.engine.run_dir import claim_folder, values_of
from gan_plugin.errors import explanations_logged
from gan_plugin.evaluation.image_features import extractor_label
from gan_plugin.files import write_whole
from gan_plugin.modeling.timm_weights import lite0_or_random

from .scores import Scorer

CONFIG, PROVENANCE = "config.yaml", "provenance.json"
_BEST = (("-", "FID", "fid"), ("", "IS", "is"))
# what a checkpoint depends on, and what of it may change nevertheless
_FIXED = ("INPUT.SIZE", "INPUT.CHANNELS", "MODEL", "SOLVER.ORDER", "SOLVER.DISC.STEPS")
_FREE = ("MODEL.DEVICE", "MODEL.WEIGHTS", "MODEL.LABEL.SHARES")


def train(cfg: CfgNode, *, resume: bool) -> None:
    """Train the GAN of `cfg`, or continue the run in its OUTPUT_DIR.

    OUTPUT_DIR gets what a Detectron2 run leaves (checkpoints, metrics.json, log.txt, TensorBoard's events and
    config.yaml), and samples/, model_best_fid.pth, model_best_is.pth, scores.json, provenance.json.

    Raises:
        UserError: a value, a path or a picture is wrong, or the run diverged.
    """
    crops = crops_of(cfg, flip=cfg.INPUT.FLIP)
    check_count(crops)
    cfg, labels = with_labels(cfg, crops)
    cfg = _with_features(cfg)
    loader = train_loader(cfg, crops, labels)
    if comm.is_main_process():
        fixed = {key: value for key, value in values_of(cfg, _FIXED).items() if key not in _FREE}
        claim_folder(cfg.OUTPUT_DIR, fixed, flat(default_config()), resume=resume, eval_only=False)
    comm.synchronize()
    for name in ("fvcore", "detectron2", "gan_plugin", "car_gan"):
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name=name, abbrev_name=name)
    with explanations_logged():
        goes_on = resume and (Path(cfg.OUTPUT_DIR) / LAST).is_file()
        loop = build_loop(cfg, crops, loader, "" if goes_on else cfg.MODEL.WEIGHTS)
        loop.resume_or_load(resume=resume)
        if comm.is_main_process():
            _write_facts(cfg, crops)
        loop.train()


def build_loop(cfg: CfgNode, crops: CropDataset, loader: Any, weights: str = "") -> ImageLoop:
    """The trainer of `cfg`, with weights drawn from SEED or from a file with a generator; errors as in `train`."""
    seed_all_rng(cfg.SEED + comm.get_rank())
    game = build_game(cfg, crops.key)
    if weights:
        _start_from(game, weights)
    epoch = max(1, len(crops) // (cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.ACCUMULATE))
    scorer = Scorer(cfg, crops, os.path.join(cfg.OUTPUT_DIR, "reference")) if comm.is_main_process() else None
    label = extractor_label(cfg.TEST.INCEPTION, cfg.TEST.FEATURES)
    prefix = f"ema/{label}" if cfg.MODEL.GAN.EMA.DECAY > 0 else label
    max_iter = cfg.SOLVER.MAX_ITER or cfg.SOLVER.MAX_EPOCHS * epoch
    options = ImageLoopOptions(
        cfg.OUTPUT_DIR,
        max_iter,
        accumulate=cfg.SOLVER.ACCUMULATE,
        amp=cfg.SOLVER.AMP.ENABLED,
        ema_decay=cfg.MODEL.GAN.EMA.DECAY,
        checkpoint_period=cfg.SOLVER.CHECKPOINT_EPOCHS * epoch,
        keep=cfg.SOLVER.KEEP,
        eval_period=cfg.TEST.EVAL_EPOCHS * epoch,
        best={f"{sign}{prefix}/{metric}": name for sign, metric, name in _BEST},
        sample_period=cfg.VIS_EPOCHS * epoch,
    )
    evaluate = scorer.while_training if scorer else _nothing
    return ImageLoop(game, loader, options, evaluate=evaluate, schedule=lambda phase: _schedule(cfg, phase, max_iter))


def _start_from(game: CarGame, path: str) -> None:
    weights = read_weights(path)
    load_network(game.generator, weights, GENERATOR, path)
    if any(name.startswith(DISCRIMINATOR) for name in weights):
        load_network(game.discriminator, weights, DISCRIMINATOR, path)


def _with_features(cfg: CfgNode) -> CfgNode:
    """`cfg` with what TEST.FEATURES "auto" means on this machine, so that a run keeps to it when it resumes."""
    cfg = cfg.clone()
    cfg.defrost()
    if not cfg.TEST.INCEPTION:
        cfg.TEST.FEATURES = lite0_or_random(cfg.TEST.FEATURES, "TEST.FEATURES")
    cfg.freeze()
    return cfg


def _nothing(game: Any, folder: str) -> dict[str, Any]:
    return {}


def _schedule(cfg: CfgNode, phase: Phase, max_iter: int) -> LRScheduler | None:
    if cfg.SOLVER.SCHEDULE == "constant":
        return None
    # full rate for one half, then straight down
    return LambdaLR(phase.optimizer, lambda step: min(1.0, 2 * (1 - step / max_iter)))


def _write_facts(cfg: CfgNode, crops: CropDataset) -> None:
    facts = {
        "git": commit(__file__),
        "crops": {"folder": str(crops.folder), "count": len(crops), "sha256": crops.fingerprint(), "key": crops.key},
        "versions": versions(),
        "licence": licence_of(crops),
    }
    texts = {CONFIG: cfg.dump(), PROVENANCE: json.dumps(facts, indent=1) + "\n"}
    for name, text in texts.items():
        write_whole(os.path.join(cfg.OUTPUT_DIR, name), text)
