"""A car GAN whose losses are plain means over crops, so that a batch may be cut anywhere; run by tests."""

import math
from dataclasses import replace

import torch
from car_gan.config import load_config
from car_gan.game import CarGame
from car_gan.networks.build import Networks
from detectron2.utils import comm
from torch import nn

from gan_plugin.engine.image_game import ImageLoop, ImageLoopOptions
from gan_plugin.engine.train_loader import ResumableTrainLoader

CROPS = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(4)) * 2 - 1
STEPS = 6
_LATENTS = 4
# latent optimisation, a lazy R1, clipping and an average: all that a step does with gradients
_OPTIONS = (
    "MODEL.DEVICE cpu MODEL.GAN.OBJECTIVE Hinge MODEL.LOGAN.ENABLED True MODEL.GAN.REG.R1_GAMMA 1.0 "
    "MODEL.GAN.REG.EVERY 2 SOLVER.CLIP_GRADIENTS.ENABLED True SOLVER.CLIP_GRADIENTS.CLIP_VALUE 0.1 "
    "SOLVER.BASE_LR 0.01 SOLVER.DISC.BASE_LR 0.01 SOLVER.DISC.STEPS 2"
)


class NoNormGame(CarGame):
    """Networks without batch statistics, and latents that are a function of the crop that they come with."""

    def draw(self, real, labels):
        return 8 * real.flatten(1)[:, :_LATENTS]


def train_one_game(folder, batch, order, *, resume=False, **changes):
    """Train for STEPS steps of `batch` crops over all processes, the players in turn or at once; the loop."""
    cfg = load_config("", [*_OPTIONS.split(), "SOLVER.ORDER", order])
    # other weights in every process: they have to be shared
    torch.manual_seed(comm.get_rank())
    generator = nn.Sequential(
        nn.Linear(_LATENTS, 16), nn.Tanh(), nn.Linear(16, 192), nn.Unflatten(1, (3, 8, 8)), nn.Tanh()
    )
    discriminator = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(128, 1), nn.Flatten(0)
    ).to(memory_format=torch.channels_last)
    options = ImageLoopOptions(str(folder), STEPS, ema_decay=0.8, checkpoint_period=3, eval_period=3, write_period=1)
    loop = ImageLoop(
        NoNormGame(cfg, Networks(generator, discriminator, None)),
        ResumableTrainLoader(list(CROPS), _same, seed=5, total_batch_size=batch, aspect_ratio_grouping=False),
        replace(options, best={"-toy/FID": "fid"}, **changes),
        evaluate=_evaluate,
    )
    loop.resume_or_load(resume=resume)
    loop.train()
    return loop


def _same(crop):
    return crop


def _evaluate(game, folder):
    if not comm.is_main_process():
        return {}
    torch.rand(7)
    return {"toy": {"FID": math.fsum(p.double().sum().item() for p in game.generator.parameters())}}


def train_twice(folder, batch, order):
    """In one of several processes: a run to its end, and the second half of it again."""
    rank = comm.get_rank()
    loop = train_one_game(folder, batch, order)
    torch.save(loop.game.state_dict(), f"{folder}/weights.{rank}")
    comm.synchronize()
    if rank == 0:
        (folder / "model_final.pth").rename(folder / "unbroken.pth")
        (folder / "last_checkpoint").write_text("model_0000002.pth")
    comm.synchronize()
    torch.rand(rank + 1)
    train_one_game(folder, batch, order, resume=True)
