"""SWAGAN's discriminator: it looks at wavelets (Gal et al. 2021, arXiv 2102.06108; thesis 4.4.3, figure 4.17)."""

import torch
from torch import nn

from gan_plugin.errors import UserError

from .contrast import stretch_contrast
from .equalised import EqualConv2d, EqualLinear, MinibatchStd, blur, halve
from .registry import DISCRIMINATOR_REGISTRY
from .wavelet import dwt

_LEAST_SIDE = 4


class _Down(nn.Module):
    """Two convolutions, the second of them after a blur and with stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.same = EqualConv2d(in_channels, in_channels, 3, padding=1)
        self.down = EqualConv2d(in_channels, out_channels, 3, stride=2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        # the filter can bring the equalised weights' scale along
        gain = self.down.scale * self.down.gain
        return self.down.convolve(blur(self.same(inputs), padding=2, gain=gain), self.down.weight)


@DISCRIMINATOR_REGISTRY.register()
class WaveletDiscriminator(nn.Module):
    """One verdict on an image of `size` x `size` pixels; its wavelets enter at every level.

    SWAGAN goes down by inverse transform, FIR filter, transform. The transform of an inverse transform is nothing, so
    the image itself is halved from level to level here and transformed once at each: the same numbers for less.
    """

    # see judge_pair
    keeps_batches_apart = True

    def __init__(
        self,
        in_channels: int,
        size: int,
        disc_width: int = 512,
        channel_multiplier: int = 3,
        stddev_group: int = 4,
        contrast: float = 1.0,
    ) -> None:
        """
        Args:
            in_channels: of the image.
            size: 4, 5, 6 or 7 times a power of two from 4 on, such as 64, 160 or 256.
            disc_width: channels at sides up to 32.
            channel_multiplier: side r above 32 has disc_width * 32 / r times so many (768, 384, 192 at 64, 128, 256).
            stddev_group: of MinibatchStd.
            contrast: of what it looks at, see `stretch_contrast`.

        Raises:
            UserError: `size` is not of that kind.
        """
        super().__init__()
        side, downs = size / 2, 0
        while side >= 2 * _LEAST_SIDE:
            side, downs = side / 2, downs + 1
        if side != int(side) or side < _LEAST_SIDE or not downs:
            raise UserError(f"INPUT.SIZE is {size}; set it to 4, 5, 6 or 7 times a power of two, such as 64 or 256.")

        def width(level: int) -> int:
            """Channels at the nominal side 4 * 2**level."""
            nominal = _LEAST_SIDE * 2**level
            return disc_width if nominal <= 32 else disc_width * 32 * channel_multiplier // nominal

        # The first level has the width of the image's side, not of its wavelets', as in SWAGAN's networks.
        widths = [width(downs + 1), *(width(level) for level in reversed(range(downs)))]
        self.from_image = nn.ModuleList(EqualConv2d(4 * in_channels, channels, 3, padding=1) for channels in widths)
        self.blocks = nn.ModuleList(_Down(a, b) for a, b in zip(widths, widths[1:], strict=False))
        last = widths[-1]
        self.statistics = MinibatchStd(stddev_group)
        self.final = EqualConv2d(last + 1, last, 3, padding=1)
        self.verdict = nn.Sequential(
            nn.Flatten(), EqualLinear(last * int(side) ** 2, last, activate=True), EqualLinear(last, 1)
        )
        self.size, self.contrast = size, contrast

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The outputs of all levels on (N, C, size, size), the finest first."""
        images = stretch_contrast(images, self.contrast)
        hidden = self.from_image[0](dwt(images))
        outputs = []
        for block, entry in zip(self.blocks, list(self.from_image)[1:], strict=True):
            images = halve(images)
            hidden = block(hidden) + entry(dwt(images))
            outputs.append(hidden)
        return outputs

    def forward(self, images: torch.Tensor, batches: int = 1) -> torch.Tensor:
        """(N, C, size, size) -> logits (N,).

        Args:
            batches: of equal size, which `images` holds one behind the other; each is judged as if it were alone.
        """
        return self.judge(self.features(images), batches)

    def judge(self, features: list[torch.Tensor], batches: int = 1) -> torch.Tensor:
        """The logits (N,) that `features` lead to."""
        return self.verdict(self.final(self.statistics(features[-1], batches)))[:, 0].float()
