"""Where z comes from."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Latents:
    """The distribution of z.

    Attributes:
        size: its length.
        distribution: "normal", N(0, 1), or "uniform" in [-1, 1].
    """

    size: int
    distribution: str = "normal"

    def draw(self, count: int, device: torch.device, truncation: float = 0.0) -> torch.Tensor:
        """(count, size) from torch's global random state.

        Args:
            count: of latents.
            device: where they are wanted.
            truncation: entries of a greater absolute value are drawn again, or for "uniform" the bound itself; 0 for
                none. BigGAN's trade of variety for quality (Brock et al. 2018, arXiv 1809.11096, section 3.1).
        """
        if self.distribution == "uniform":
            return (torch.rand(count, self.size, device=device) * 2 - 1) * (truncation or 1.0)
        z = torch.randn(count, self.size, device=device)
        while truncation and bool((outside := z.abs() > truncation).any()):
            z = torch.where(outside, torch.randn_like(z), z)
        return z

    def fixed(self, count: int, device: torch.device, seed: int, truncation: float = 0.0) -> torch.Tensor:
        """The same (count, size) for the same seed, on any device; the global random state stays."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.draw(count, torch.device("cpu"), truncation).to(device)
