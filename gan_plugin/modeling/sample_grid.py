"""A picture of what the discriminator is asked to tell apart."""

import torch

from .samples import MaskSamples

_SEPARATOR = 0.5


def sample_grid(samples: MaskSamples, columns: int = 16) -> torch.Tensor:
    """Annotated masks above their predictions, side by side.

    Args:
        samples: R masks of side M.
        columns: at most so many of them, evenly chosen.

    Returns:
        (3, 2M + 1, K(M + 1) - 1) on the CPU, values in [0, 1], K = min(R, columns), with a grey line between masks.
    """
    count = min(len(samples), columns)
    chosen = torch.linspace(0, len(samples) - 1, count, device=samples.logits.device).round().long()
    rows = [samples.truth[chosen], samples.logits.detach()[chosen].sigmoid()]
    strips = [_side_by_side(row.float().cpu()) for row in rows]
    line = torch.full((1, strips[0].shape[1]), _SEPARATOR)
    return torch.cat([strips[0], line, strips[1]])[None].repeat(3, 1, 1)


def _side_by_side(masks: torch.Tensor) -> torch.Tensor:
    padded = torch.nn.functional.pad(masks, (0, 1), value=_SEPARATOR)
    return torch.cat(list(padded), dim=1)[:, :-1]
