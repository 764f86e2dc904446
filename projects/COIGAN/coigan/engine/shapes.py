"""The second game: SWAGAN on the masks of a class or on base tiles (arXiv 2102.06108), and the bank that it leaves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn
from torchvision.utils import make_grid
from yacs.config import CfgNode

from coigan.data.objects import write_objects
from coigan.data.regions import Region, components
from coigan.data.samples import SampleMapper, open_shapes
from coigan.losses import PathLength
from coigan.modeling import WaveletDiscriminator, WaveletGenerator
from coigan.modeling.build import choose_device, judge_pair
from gan_plugin.engine.checkpoint import AVERAGE, checkpoint_file
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.engine.image_game import ImageGame, ImageLoop, ImageLoopOptions, Losses, Phase
from gan_plugin.engine.train_loader import ResumableTrainLoader
from gan_plugin.errors import UserError
from gan_plugin.modeling.duel import Duel
from gan_plugin.modeling.objectives import NonSaturatingBCE
from gan_plugin.modeling.stability import r1

_PREVIEWS = 64
_GRID_COLUMNS = 8
_PREVIEW_SEED = 64


class ShapeGame(ImageGame):
    """StyleGAN2's training of SWAGAN's networks: softplus losses, R1, path length of styles, style mixing."""

    generator: WaveletGenerator

    def __init__(self, cfg: CfgNode, device: torch.device) -> None:
        """
        Args:
            cfg: its SHAPES node, INPUT.SIZE and MODEL.DISCRIMINATOR are used.
            device: of the networks.

        Raises:
            UserError: the size is no power of two.
        """
        super().__init__()
        node = cfg.SHAPES
        self.channels = 1 if node.SOURCE == "masks" else 3
        judge = cfg.MODEL.DISCRIMINATOR
        self.generator = WaveletGenerator(
            cfg.INPUT.SIZE, self.channels, node.STYLE_SIZE, node.MAPPING_LAYERS, node.WIDTH, node.CHANNEL_MULTIPLIER
        ).to(device)
        self.discriminator = WaveletDiscriminator(
            self.channels, cfg.INPUT.SIZE, judge.WIDTH, node.CHANNEL_MULTIPLIER, judge.STDDEV_GROUP
        ).to(device)
        self.path_length = PathLength().to(device)
        self._node, self.device = node, device
        self._duel = Duel(NonSaturatingBCE())
        draw = torch.Generator().manual_seed(_PREVIEW_SEED)
        self._latents = torch.randn(_PREVIEWS, node.STYLE_SIZE, generator=draw).to(device)

    def collate(self, items: list[Mapping[str, torch.Tensor]]) -> torch.Tensor:
        """(N, C, H, W) in [-1, 1]."""
        return torch.stack([item["image"] for item in items]).to(self.device, torch.float32) * 2 - 1

    def phases(self) -> Sequence[Phase]:
        node = self._node
        disc = _adam(node, self.discriminator, node.R1_EVERY if node.R1 > 0 else 0)
        gen = _adam(node, self.generator, node.PATH_EVERY if node.PATH_LENGTH > 0 else 0)
        phases = [Phase("discriminator", [self.discriminator], disc, self._discriminator)]
        if node.R1 > 0:
            every = node.R1_EVERY
            phases.append(
                Phase("discriminator_r1", [self.discriminator], disc, self._r1, every=every, gain=float(every))
            )
        phases.append(Phase("generator", [self.generator], gen, self._generator))
        if node.PATH_LENGTH > 0:
            every = node.PATH_EVERY
            phases.append(Phase("path_length", [self.generator], gen, self._path, every=every, gain=float(every)))
        return phases

    def _styles(self, count: int) -> torch.Tensor:
        """Styles of new latents, of two in MIXING of all calls (style mixing)."""
        latents = torch.randn(2, count, self._node.STYLE_SIZE, device=self.device)
        if torch.rand(()).item() >= self._node.MIXING:
            return self.generator.styles(latents[0])
        crossover = int(torch.randint(1, self.generator.layers, (1,)).item())
        return self.generator.styles(latents[0], latents[1], crossover)

    def _discriminator(self, real: torch.Tensor) -> Losses:
        with torch.no_grad():
            fake = self.generator.draw(self._styles(len(real))).float()
        verdicts = judge_pair(self.discriminator, real, fake)
        self._duel.record("image", *verdicts)
        spread = fake.std(dim=0).mean() / real.std(dim=0).mean().clamp(min=1e-6) if len(real) > 1 else fake.new_ones(())
        get_event_storage().put_scalar("gan/image/diversity", spread.item())
        return {"loss_disc_shape": self._duel.discriminator_loss(*verdicts)}

    def _r1(self, real: torch.Tensor) -> Losses:
        with torch.autocast(self.device.type, enabled=False):
            return {"loss_disc_r1": self._node.R1 / 2 * r1(self.discriminator, real)}

    def _generator(self, real: torch.Tensor) -> Losses:
        fake = self.generator.draw(self._styles(len(real))).float()
        return {
            "loss_adv_shape": self._duel.generator_loss(lambda images: self.discriminator(images).float(), fake, real)
        }

    def _path(self, real: torch.Tensor) -> Losses:
        with torch.autocast(self.device.type, enabled=False):
            styles = self._styles(max(1, len(real) // self._node.BATCH_SHRINK))
            penalty, mean = self.path_length(self.generator.draw(styles), styles)
        get_event_storage().put_scalar("gan/path_length", mean.item())
        return {"loss_path_length": self._node.PATH_LENGTH * penalty}

    def picture(self) -> torch.Tensor | None:
        """64 images of the same latents every time."""
        images = torch.cat([self.generator(part) for part in self._latents.split(_GRID_COLUMNS)])
        grid: Any = make_grid((images.clamp(-1, 1) + 1) / 2, nrow=_GRID_COLUMNS, padding=2, pad_value=0.5)
        return grid


def _adam(node: CfgNode, network: nn.Module, every: int) -> torch.optim.Optimizer:
    """Adam whose rate and betas make up for the lazy regulariser's steps (Karras et al. 2020, 1912.04958, B)."""
    share = every / (every + 1) if every else 1.0
    betas = (node.BETAS[0] ** share, node.BETAS[1] ** share)
    return torch.optim.Adam(network.parameters(), node.LR * share, betas)


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
