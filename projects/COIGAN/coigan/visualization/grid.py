"""Base images, masks and results side by side."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

# One colour a class: Okabe and Ito's, which colour-blind readers tell apart.
CLASS_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0))
_GAP = 2


def paint_masks(images: torch.Tensor, masks: torch.Tensor, strength: float = 0.6) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1] under half-transparent masks (N, n, H, W), one colour a class."""
    painted = images.clone()
    for number in range(masks.shape[1]):
        colour = torch.tensor(CLASS_COLOURS[number % len(CLASS_COLOURS)], device=images.device) / 255
        cover = strength * masks[:, number : number + 1].clamp(0, 1)
        painted = painted * (1 - cover) + colour.view(1, 3, 1, 1) * cover
    return painted


def comparison_grid(
    base: torch.Tensor, masks: torch.Tensor, images: torch.Tensor, more: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """A row for each sample: base image, its masks over it, the result, and more, with white gaps.

    Args:
        base, images: (N, 3, H, W) in [0, 1].
        masks: (N, n, H, W).
        more: further columns, as `images`.

    Returns:
        (3, N (H + 2) - 2, k (W + 2) - 2) in [0, 1], k columns.
    """
    columns = [base, paint_masks(base, masks), images.clamp(0, 1), *more]
    framed = [F.pad(column, (0, _GAP, 0, _GAP), value=1.0) for column in columns]
    return torch.cat(list(torch.cat(framed, dim=3)), dim=1)[:, :-_GAP, :-_GAP]


def detail_columns(noisy_masks: torch.Tensor, fake: torch.Tensor, real: torch.Tensor) -> list[torch.Tensor]:
    """What both players see of the defects, (N, 3, H, W) each: masks with their noise, painted and real defects.

    Args:
        noisy_masks: (N, n, H, W), which the generator sees.
        fake, real: canvases of all classes, (N, 3n, H, W), which the discriminator sees.
    """
    together = [canvases.unflatten(1, (-1, 3)).sum(1).clamp(0, 1) for canvases in (fake, real)]
    return [paint_masks(torch.zeros_like(together[0]), noisy_masks, strength=1.0), *together]
