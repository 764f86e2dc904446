"""COIGAN's training step against the same networks written down as the papers draw them."""

import copy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _bench_timing import Table, interleave, summarise
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "projects/COIGAN"))

from coigan.config import load_config  # noqa: E402
from coigan.data.prepare import PrepareOptions, prepare  # noqa: E402
from coigan.engine.players import LAYOUT  # noqa: E402
from coigan.engine.throughput import samples_per_second  # noqa: E402
from coigan.modeling import LamaFourier, WaveletDiscriminator  # noqa: E402
from coigan.modeling.fourier import FFC  # noqa: E402
from coigan.modeling.wavelet import dwt, iwt  # noqa: E402

PLAIN, OURS = "as drawn", "ours"
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
        hidden = network.from_image[0](bands)
        for block, entry in zip(network.blocks, list(network.from_image)[1:], strict=True):
            bands = dwt(_filter(iwt(bands), 1, 2))
            hidden = block.down(_filter(block.same(hidden), 2, 1)) + entry(bands)
        return network.judge([hidden])


def _filter(inputs: torch.Tensor, padding: int, stride: int) -> torch.Tensor:
    taps = (_FIR[:, None] * _FIR[None] / 64).to(inputs).expand(inputs.shape[1], 1, 4, 4)
    return F.conv2d(inputs, taps, stride=stride, padding=padding, groups=inputs.shape[1])


def measure_coigan(rounds: int, device: str, size: int = 64, batch: int = 4, width: int = 32) -> Table:
    """Seconds of a training step (both turns) of both implementations, and ratios of ours to the drawn one.

    Both start from the same weights, and their first outputs are compared.

    Args:
        rounds: how often each is timed.
        device: where.
        size, batch: of the images.
        width: channels of the generator's first layer; the discriminator has 8 times as many.
    """
    torch.manual_seed(0)
    inputs = torch.rand(batch, 7, size, size).to(device)
    masks = (torch.rand(batch, 4, size, size) > 0.8).float().to(device)
    steps: dict[str, Callable[[], Any]] = {}
    verdicts = {}
    for name in (PLAIN, OURS):
        torch.manual_seed(1)
        generator: nn.Module = LamaFourier(7, width=width, blocks=4)
        judge: nn.Module = WaveletDiscriminator(12, size, disc_width=8 * width, channel_multiplier=1)
        if name == PLAIN:
            assert isinstance(generator, LamaFourier) and isinstance(judge, WaveletDiscriminator)
            generator, judge = drawn_generator(generator), DrawnDiscriminator(judge)
        layout = torch.contiguous_format if name == PLAIN else LAYOUT
        generator, judge = (network.to(device, memory_format=layout) for network in (generator, judge))
        with torch.no_grad():
            verdicts[name] = judge(_canvases(generator(inputs), masks))
        steps[name] = _step(generator, judge, inputs, masks)
    torch.testing.assert_close(verdicts[OURS], verdicts[PLAIN], rtol=1e-3, atol=1e-3)
    return summarise(interleave(steps, rounds, device), PLAIN)


def measure_loading(batches: int) -> dict[int, float]:
    """Training samples a second of toy steel at 64 pixels, by number of worker processes, over so many batches."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        prepare("toy", data, PrepareOptions(tile=64, toy_count=20, toy_size=(64, 256), workers=1))
        cfg = load_config("", ["INPUT.SIZE", "64", "DATA.ROOT", str(data)])
        return {workers: samples_per_second(cfg, workers, batches) for workers in (1, 2)}


def _canvases(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    return (images[:, None] * masks[:, :, None]).flatten(1, 2)


def _step(generator: nn.Module, judge: nn.Module, inputs: torch.Tensor, masks: torch.Tensor) -> Callable[[], None]:
    players = [torch.optim.AdamW(network.parameters(), 2e-4) for network in (judge, generator)]
    real = _canvases(inputs[:, :3], masks)

    def step() -> None:
        with torch.no_grad():
            fake = generator(inputs)
        loss = F.softplus(-judge(real)).mean() + F.softplus(judge(_canvases(fake, masks))).mean()
        players[0].zero_grad()
        loss.backward()
        players[0].step()
        loss = F.softplus(-judge(_canvases(generator(inputs), masks))).mean()
        players[1].zero_grad()
        loss.backward()
        players[1].step()

    return step
