"""What a discriminator is shown of faint defects."""

import torch


def stretch_contrast(canvases: torch.Tensor, contrast: float) -> torch.Tensor:
    """Each colour canvas of each sample, stretched `contrast` times around its mean grey; black stays black. Ours.

    On black the silhouette of a defect is a far greater step than all that is within it, and silhouettes are alike in
    real and painted canvases; a discriminator learns nothing else for long. Stretching loses nothing, and lets it see
    texture at once.

    Args:
        canvases: (N, 3k, H, W), k images in colour one after another; pixels above 0 in any colour count as painted.
        contrast: 1 for canvases as they are.

    Returns:
        The same shape, mean grey of each canvas as before.
    """
    if contrast == 1:
        return canvases
    colours = canvases.unflatten(1, (-1, 3))
    painted = (colours > 0).any(2, keepdim=True).to(canvases.dtype)
    pixels = painted.sum((2, 3, 4), keepdim=True).clamp(min=1)
    mean = (colours * painted).sum((2, 3, 4), keepdim=True) / (3 * pixels)
    return (painted * (mean + contrast * (colours - mean))).flatten(1, 2)
