"""Where z comes from."""

from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode
from torch.nn import functional


@dataclass(frozen=True)
class Latents:
    """The distribution of z.

    Attributes:
        size: its length.
        distribution: "normal", N(0, 1), or "uniform" in [-1, 1].
        shares: of the labels, for a conditional generator; z is then followed by the label as a one-hot vector, which
            makes the first layer's weights for it an embedding.
    """

    size: int
    distribution: str = "normal"
    shares: tuple[float, ...] = ()

    @classmethod
    def of(cls, cfg: CfgNode) -> "Latents":
        """Those of a config."""
        return cls(cfg.MODEL.LATENT.SIZE, cfg.MODEL.LATENT.DISTRIBUTION, tuple(cfg.MODEL.LABEL.SHARES))

    def draw(
        self, count: int, device: torch.device, truncation: float = 0.0, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(count, size + number of labels) from torch's global random state.

        Args:
            count: of latents.
            device: where they are wanted.
            truncation: entries of a greater absolute value are drawn again, or for "uniform" the bound itself; 0 for
                none. BigGAN's trade of variety for quality (Brock et al. 2018, arXiv 1809.11096, section 3.1).
            labels: (count,) numbers of labels; None draws them by their shares.
        """
        z = self._noise(count, device, truncation)
        if not self.shares:
            return z
        if labels is None:
            labels = torch.multinomial(torch.tensor(self.shares), count, replacement=True)
        return torch.cat([z, functional.one_hot(labels.to(device), len(self.shares)).to(z.dtype)], dim=1)

    def _noise(self, count: int, device: torch.device, truncation: float) -> torch.Tensor:
        if self.distribution == "uniform":
            return (torch.rand(count, self.size, device=device) * 2 - 1) * (truncation or 1.0)
        z = torch.randn(count, self.size, device=device)
        while truncation and bool((outside := z.abs() > truncation).any()):
            z = torch.where(outside, torch.randn_like(z), z)
        return z

    def fixed(
        self, count: int, device: torch.device, seed: int, truncation: float = 0.0, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The same latents for the same seed, on any device; the global random state stays. Arguments as of `draw`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.draw(count, torch.device("cpu"), truncation, labels).to(device)
