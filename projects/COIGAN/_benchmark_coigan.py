"""COIGAN's training step against a plain loop over the same networks, written down as the papers draw them."""

import copy
import itertools
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from coigan.batch import collate, cut_defects
from coigan.config import load_config
from coigan.data.prepare import PrepareOptions, prepare
from coigan.data.samples import SampleMapper, open_data
from coigan.engine.game import build_game
from coigan.modeling import LamaFourier, WaveletDiscriminator
from coigan.modeling.fourier import FFC
from coigan.modeling.layers import EqualConv2d, EqualLinear
from coigan.modeling.wavelet import dwt, iwt
from detectron2.utils.events import EventStorage
from torch import nn
from yacs.config import CfgNode

from benchmarks.timing import Table, interleave, summarise
from gan_plugin.engine.image_game import ImageGame, ImageStep
from gan_plugin.engine.train_loader import ResumableTrainLoader

PLAIN, FROZEN, OURS = "plain loop", "plain loop, judge frozen in the generator's turn", "COIGAN's trainer"
CLASSES = 4
_FIR = torch.tensor([1.0, 3.0, 3.0, 1.0])


class DrawnFFC(nn.Module):
    """The four paths of a fast Fourier convolution one by one, with the weights of `layer`."""

    def __init__(self, layer: FFC) -> None:
        super().__init__()
        self.local = layer.local
        weight = layer.to_local.weight.detach()
        parts = weight.split([self.local, weight.shape[1] - self.local], dim=1)
        self.l2l, self.g2l = (nn.Parameter(part.clone()) for part in parts)
        self.l2g = nn.Parameter(layer.to_global.weight.detach().clone())
        self.spectral = layer.spectral

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        low, high = inputs[:, : self.local], inputs[:, self.local :]

        def conv(part: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return F.conv2d(F.pad(part, (1, 1, 1, 1), mode="reflect"), weight)

        low_out = conv(low, self.l2l) + conv(high, self.g2l)
        return torch.cat([low_out, conv(low, self.l2g) + self.spectral(high)], dim=1)


def drawn_generator(generator: LamaFourier) -> nn.Module:
    """A copy of `generator` with every fast Fourier convolution as drawn."""
    drawn = copy.deepcopy(generator)
    for module in list(drawn.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, FFC):
                setattr(module, name, DrawnFFC(child))
    return drawn


class DrawnDiscriminator(nn.Module):
    """SWAGAN's discriminator, down by inverse transform, filter, transform; 4x4 filters as dense kernels."""

    def __init__(self, network: WaveletDiscriminator) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, S, S) -> (N,)."""
        network, bands = self.network, dwt(images)
        hidden = _equalised(network.from_image[0], bands)
        for block, entry in zip(network.blocks, list(network.from_image)[1:], strict=True):
            bands = dwt(_filter(iwt(bands), 1, 2))
            hidden = _equalised(block.down, _filter(_equalised(block.same, hidden), 2, 1)) + _equalised(entry, bands)
        hidden = _equalised(network.final, network.statistics(hidden)).flatten(1)
        return _equalised(network.verdict[2], _equalised(network.verdict[1], hidden))[:, 0]


def _equalised(layer: EqualConv2d | EqualLinear, inputs: torch.Tensor) -> torch.Tensor:
    """The scale on the weights, and a gain after the leaky ReLU."""
    weight = layer.weight * layer.scale
    if isinstance(layer, EqualLinear):
        outputs = F.linear(inputs, weight, layer.bias)
    else:
        outputs = F.conv2d(inputs, weight, layer.bias, layer.stride, layer.padding)
    return F.leaky_relu(outputs, 0.2) * math.sqrt(2) if layer.activate else outputs


def _filter(inputs: torch.Tensor, padding: int, stride: int) -> torch.Tensor:
    taps = (_FIR[:, None] * _FIR[None] / 64).to(inputs).expand(inputs.shape[1], 1, 4, 4)
    return F.conv2d(inputs, taps, stride=stride, padding=padding, groups=inputs.shape[1])


def measure_coigan(rounds: int, device: str, size: int = 64, batch: int = 4, width: int = 32) -> Table:
    """Seconds of a training step (both turns) of two plain loops and of ours, and ratios to the loop that freezes.

    All start from the same weights, and their first verdicts are compared. They play the adversarial losses only.

    Args:
        rounds: how often each is timed.
        device: where.
        size, batch: of the images.
        width: channels of the generator's first layer; the discriminator has 8 times as many.
    """
    cfg = small_config(size, width, device)
    torch.manual_seed(0)
    items = [random_sample(size) for _ in range(batch)]
    sample = collate(items, torch.device(device))
    steps: dict[str, Callable[[], Any]] = {}
    verdicts = {}
    for name in (FROZEN, PLAIN, OURS):
        torch.manual_seed(1)
        game = build_game(cfg, CLASSES)
        generator, judge = game.generator, game.discriminator
        if name == OURS:
            steps[name] = _our_step(game, items)
        else:
            assert isinstance(generator, LamaFourier) and isinstance(judge, WaveletDiscriminator)
            generator, judge = drawn_generator(generator), DrawnDiscriminator(judge)
            for network in (generator, judge):
                network.to(memory_format=torch.contiguous_format)
            steps[name] = _plain_step(generator, judge, items, device, name == FROZEN)
        with torch.no_grad():
            verdicts[name] = judge(cut_defects(generator(sample.inputs), sample.masks))
    torch.testing.assert_close(verdicts[OURS], verdicts[FROZEN], rtol=1e-3, atol=1e-3)
    with EventStorage():
        return summarise(interleave(steps, rounds, device), FROZEN)


def measure_loading(batches: int) -> dict[int, float]:
    """Training samples a second of toy steel at 64 pixels, by number of worker processes, over so many batches."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        prepare("toy", data, PrepareOptions(tile=64, toy_count=20, toy_size=(64, 256), workers=1))
        cfg = load_config("", ["INPUT.SIZE", "64", "DATA.ROOT", str(data)])
        return {workers: samples_per_second(cfg, workers, batches) for workers in (1, 2)}


def small_config(size: int, width: int, device: str) -> CfgNode:
    """Of a small generator and discriminator that play the adversarial losses only; arguments of `measure_coigan`."""
    off = ("R1", "PATH_LENGTH", "L1_SMOOTH", "PERCEPTUAL_SMOOTH")
    options = {
        **{f"LOSS.{name}.WEIGHT": 0.0 for name in off},
        **{f"LOSS.{name}.WEIGHT": 1.0 for name in ("ADVERSARIAL", "DISCRIMINATOR")},
        "MODEL.REF_DISCRIMINATOR.ENABLED": False,
        "MODEL.GENERATOR.WIDTH": width,
        "MODEL.GENERATOR.BLOCKS": 4,
        "MODEL.DISCRIMINATOR.WIDTH": 8 * width,
        "MODEL.DISCRIMINATOR.CHANNEL_MULTIPLIER": 1,
        "INPUT.SIZE": size,
        "SOLVER.LR": 2e-4,
        "DEVICE": device,
    }
    return load_config("", [str(part) for pair in options.items() for part in pair])


def random_sample(size: int) -> dict[str, torch.Tensor]:
    """A sample of noise, as the loader makes them of images."""
    base = torch.rand(3, size, size)
    masks = (torch.rand(CLASSES, size, size) > 0.8).float()
    defects = torch.rand(3 * CLASSES, size, size) * masks.repeat_interleave(3, dim=0)
    inputs = torch.cat([base, masks * 0.5])
    return {"base": base, "gen_input": inputs, "orig_gen_input_masks": masks, "disc_input": defects}


def _our_step(game: ImageGame, items: list[dict[str, torch.Tensor]]) -> Callable[[], None]:
    step = ImageStep(game, list(game.phases()), itertools.repeat(items), accumulate=1, amp=False)
    step.iter = 0

    def both_turns() -> None:
        for _ in range(2):
            step.run_step()
            step.iter += 1

    return both_turns


def _plain_step(
    generator: nn.Module, judge: nn.Module, items: list[dict[str, torch.Tensor]], device: str, freeze: bool
) -> Callable[[], None]:
    """What one writes after a first course: two optimizers, softplus; nothing is measured."""
    for_d, for_g = (torch.optim.AdamW(network.parameters(), 2e-4, (0.0, 0.998)) for network in (judge, generator))

    def step() -> None:
        keys = ("gen_input", "orig_gen_input_masks", "disc_input")
        inputs, masks, real = (torch.stack([item[key] for item in items]).to(device) for key in keys)
        with torch.no_grad():
            fake = generator(inputs)
        loss = F.softplus(-judge(real)).mean() + F.softplus(judge(cut_defects(fake, masks))).mean()
        for_d.zero_grad()
        loss.backward()
        for_d.step()
        judge.requires_grad_(not freeze)
        loss = F.softplus(-judge(cut_defects(generator(inputs), masks))).mean()
        for_g.zero_grad()
        loss.backward()
        for_g.step()
        judge.requires_grad_(True)
        loss.item()

    return step


def samples_per_second(cfg: CfgNode, workers: int, batches: int = 20, batch: int = 8) -> float:
    """Samples of the prepared data set DATA.ROOT a second, after a first batch that starts the workers.

    Args:
        cfg: with DATA.ROOT and INPUT.
        workers: processes that load; 0 for this one.
        batches: that are timed.
        batch: samples in one.

    Raises:
        UserError: there is no prepared data set.
    """
    loader = ResumableTrainLoader(
        [{"number": number} for number in range(batch)],
        SampleMapper(open_data(cfg).draw),
        seed=cfg.SEED,
        total_batch_size=batch,
        num_workers=workers,
        aspect_ratio_grouping=False,
    )
    stream = iter(loader)
    next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * batch / (time.perf_counter() - start)
