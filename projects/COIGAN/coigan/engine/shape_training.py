"""A run of the second game, and the bank of masks that it leaves."""

from pathlib import Path

import numpy as np
import torch
from detectron2.utils import comm
from yacs.config import CfgNode

from coigan.data.objects import write_objects
from coigan.data.regions import Region, components
from gan_plugin.engine.checkpoint import AVERAGE, checkpoint_file
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.engine.image_game import ImageLoop, ImageLoopOptions
from gan_plugin.engine.train_loader import ResumableTrainLoader
from gan_plugin.errors import UserError

from .data import open_shapes
from .players import choose_device
from .shape_game import ShapeGame
from .training import SampleMapper

_LEAST_AREA = 16
_BATCH = 16
_MOST_DRAWS = 50


def build_shape_loop(cfg: CfgNode) -> ImageLoop:
    """The training loop of SHAPES, not yet started.

    Raises:
        UserError: the data, the size or the batch cannot be used.
    """
    node, solver = cfg.SHAPES, cfg.SOLVER
    if node.IMS_PER_BATCH % comm.get_world_size():
        raise UserError(f"SHAPES.IMS_PER_BATCH is {node.IMS_PER_BATCH}; make it a multiple of the processes.")
    draw = open_shapes(cfg)
    game = ShapeGame(cfg, choose_device(cfg.DEVICE))
    loader = ResumableTrainLoader(
        [{"number": number} for number in range(node.IMS_PER_BATCH)],
        SampleMapper(draw),
        seed=cfg.SEED,
        total_batch_size=node.IMS_PER_BATCH,
        num_workers=solver.NUM_WORKERS,
        aspect_ratio_grouping=False,
    )
    options = ImageLoopOptions(
        output_dir=cfg.OUTPUT_DIR,
        max_iter=node.MAX_ITER,
        amp=solver.AMP,
        ema_decay=node.EMA_DECAY,
        checkpoint_period=solver.CHECKPOINT_PERIOD,
        keep=solver.KEEP,
        sample_period=solver.SAMPLE_PERIOD,
        write_period=solver.WRITE_PERIOD,
        histogram_period=cfg.SOLVER.HISTOGRAM_PERIOD,
    )
    return ImageLoop(game, loader, options)


def write_bank(loop: ImageLoop, cfg: CfgNode, count: int, folder: Path) -> int:
    """Draw masks with the trained generator until their parts of 16 pixels or more are `count`; write an object store.

    Args:
        loop: after its training; the moving average draws if there is one.
        cfg: of the run; SHAPES.SOURCE is masks.
        count: objects to write.
        folder: of the store.

    Returns:
        How many there are, `count` unless the generator draws next to nothing.

    Raises:
        UserError: the generator draws no mask at all.
    """
    game = loop.game
    assert isinstance(game, ShapeGame)
    average = torch.load(checkpoint_file(cfg.OUTPUT_DIR, AVERAGE), weights_only=True) if cfg.SHAPES.EMA_DECAY else None
    if average:
        game.generator.load_state_dict(average["model"])
    game.eval()
    found: list[Region] = []
    with preserved_rng(seed=cfg.SEED), torch.no_grad():
        for _ in range(_MOST_DRAWS * (1 + count // _BATCH)):
            if len(found) >= count:
                break
            drawn = game.generator(torch.randn(_BATCH, cfg.SHAPES.STYLE_SIZE, device=game.device))
            for mask in (drawn[:, 0] > 0).cpu().numpy():
                found += [part for part in components(np.asarray(mask), cfg.SHAPES.CLASS) if part.area >= _LEAST_AREA]
    if not found:
        raise UserError("The generator of masks draws no mask yet; train it longer (SHAPES.MAX_ITER).")
    objects = [(f"generated_{number:06d}", None, region) for number, region in enumerate(found[:count])]
    write_objects(folder, objects)
    return len(objects)
