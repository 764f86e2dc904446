"""What is done to real and fake samples alike before a discriminator sees them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from gan_plugin.errors import UserError

# Zhao et al. 2020, arXiv 2006.10738, appendix: shifts up to 1/8 of the side, holes of half the side.
_MOST_SHIFT = 1 / 8
_HOLE = 1 / 2


class DiscriminatorAugment:
    """Differentiable augmentation (DiffAugment; Zhao et al. 2020, arXiv 2006.10738) and Gaussian instance noise
    (Sonderby et al. 2017, arXiv 1610.04490), drawn anew for every sample and every call.

    Of the paper's policies "translation" and "cutout" make sense for a mask, "colour" only for an image; "flip", left
    to right, is ours.
    """

    def __init__(self, policy: str = "", noise: float = 0.0, background: float | torch.Tensor = 0.0) -> None:
        """
        Args:
            policy: names of `POLICIES`, separated by commas; "" for none.
            noise: standard deviation of the noise, 0 for none.
            background: the value that fills what an augmentation uncovers; a tensor (1, C, 1, 1) for a colour.

        Raises:
            UserError: a policy is unknown; the sentence lists the known.
        """
        names = [name.strip() for name in policy.split(",") if name.strip()]
        for name in names:
            if name not in POLICIES:
                raise UserError(
                    f"MODEL.GAN.DIFFAUG is {policy!r}, but {name!r} is unknown; name some of {', '.join(POLICIES)}, "
                    'separated by commas, or "" for none.'
                )
        self.policies = [POLICIES[name] for name in names]
        self.noise = noise
        self.background = background

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """(R, C, S, S) to the same shape, differentiable."""
        if len(samples):
            background = self.background
            if isinstance(background, torch.Tensor):
                background = background.to(samples)
            for augment in self.policies:
                # a colour has no background to leave alone
                ground = 0.0 if augment is colour else background
                samples = augment(samples - ground) + ground
        return samples + self.noise * torch.randn_like(samples) if self.noise > 0 else samples

    def alike(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, C, S, S) twice: real and fake of a pair are augmented by the same draws, with noise of their own."""
        if self.policies or self.noise > 0:
            real, fake = self(torch.cat([real, fake], dim=1)).chunk(2, dim=1)
        return real, fake


def translate(samples: torch.Tensor) -> torch.Tensor:
    """Shift each sample by up to an eighth of its side along either axis; zeros move in."""
    side = samples.shape[-1]
    most = round(side * _MOST_SHIFT)
    padded = F.pad(samples, (most,) * 4)
    first = torch.randint(0, 2 * most + 1, (2, len(samples)), device=samples.device)
    window = torch.arange(side, device=samples.device)
    rows, columns = (first[:, :, None] + window).unbind()  # (R, S) each
    index = torch.arange(len(samples), device=samples.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(samples: torch.Tensor) -> torch.Tensor:
    """Set a square of half the side to zero, anywhere, also partly outside."""
    side = samples.shape[-1]
    hole = round(side * _HOLE)
    centre = torch.randint(0, side + (1 - hole % 2), (2, len(samples), 1), device=samples.device)
    distance = torch.arange(side, device=samples.device) - centre + hole // 2
    rows, columns = ((distance >= 0) & (distance < hole)).unbind()  # (R, S) each
    return samples * ~(rows[:, None, :, None] & columns[:, None, None, :])


def flip(samples: torch.Tensor) -> torch.Tensor:
    """Mirror half of the samples left to right."""
    mirrored = torch.rand(len(samples), 1, 1, 1, device=samples.device) < 0.5
    return torch.where(mirrored, samples.flip(-1), samples)


def colour(samples: torch.Tensor) -> torch.Tensor:
    """Change brightness (by up to 0.5 in [-1, 1]), saturation (0 to 2 times) and contrast (0.5 to 1.5 times) of each.

    Only the first three of its channels; a fourth one, alpha, stays.
    """
    pixels, rest = samples[:, :3], samples[:, 3:]
    brightness, saturation, contrast = torch.rand(3, len(samples), 1, 1, 1, device=samples.device).unbind()
    pixels = pixels + brightness - 0.5
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = (pixels - grey) * (2 * saturation) + grey
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = (pixels - mean) * (0.5 + contrast) + mean
    return torch.cat([pixels, rest], dim=1)


POLICIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "translation": translate,
    "cutout": cut_out,
    "flip": flip,
    "colour": colour,
}
