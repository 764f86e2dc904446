"""From a config and prepared data to a finished run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from yacs.config import CfgNode

from coigan.evaluation.features import painted_batches, real_features
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.engine.image_game import Evaluate, ImageGame, ImageLoop, ImageLoopOptions
from gan_plugin.engine.train_loader import ResumableTrainLoader
from gan_plugin.errors import UserError
from gan_plugin.evaluation.image_features import build_extractor, extract, extractor_label
from gan_plugin.evaluation.image_scores import score

from .game import InpaintingGame
from .players import build_game, choose_device

_logger = logging.getLogger(__name__)
_PREVIEWS = 4
_EVALUATION_SEED = 10_000


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on and is scored against.

    Attributes:
        classes: names of the mask channels.
        draw: number -> a sample (thesis figure 4.15), drawn from the global random state.
        test_tiles: real images that training does not see, for FID; may be empty.
        train_tiles: those that it sees.
    """

    classes: tuple[str, ...]
    draw: Callable[[int], Mapping[str, torch.Tensor]]
    test_tiles: Sequence[Path] = ()
    train_tiles: Sequence[Path] = ()


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
    options = ImageLoopOptions(
        output_dir=cfg.OUTPUT_DIR,
        max_iter=solver.MAX_ITER,
        amp=solver.AMP,
        ema_decay=solver.EMA_DECAY,
        checkpoint_period=solver.CHECKPOINT_PERIOD,
        keep=solver.KEEP,
        eval_period=cfg.TEST.EVAL_PERIOD,
        best={f"-{prefix}{label}/FID": "fid"} if evaluate else {},
        sample_period=solver.SAMPLE_PERIOD,
        write_period=solver.WRITE_PERIOD,
        histogram_period=cfg.SOLVER.HISTOGRAM_PERIOD,
    )
    _logger.info(f"Classes: {', '.join(data.classes)}. Perceptual losses by {game.features_title}.")
    return ImageLoop(game, loader, options, evaluate=evaluate)


class SampleMapper:
    """Draws a sample whatever the record is; a class of its own because workers may have to pickle it."""

    def __init__(self, draw: Callable[[int], Mapping[str, torch.Tensor]]) -> None:
        self._draw = draw

    def __call__(self, record: Mapping[str, int]) -> Mapping[str, torch.Tensor]:
        return self._draw(int(torch.randint(0, 2**31, ()).item()))


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
            return score(real, extract(extractor, batches)).results()
        finally:
            game.train(was_training)

    return evaluate
