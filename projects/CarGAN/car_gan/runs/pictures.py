"""Pictures of what a generator has learnt; all (H, W, 3) bytes."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torchvision.utils import make_grid

from car_gan.networks.parts import SelfAttention
from gan_plugin.files import write_whole

from .trained import Trained

_GAP = 2
# rows and columns of a sheet of labels
_SIDE = 8
_MOST_LABELS = 2 * _SIDE
_LEAK = (213, 94, 0)


def sheet(images: torch.Tensor, columns: int) -> np.ndarray:
    """(N, C, S, S) in [-1, 1] in rows of `columns`, white between them; alpha is left out."""
    pixels = (images[:, :3].float().clamp(-1, 1) + 1) / 2
    return to_bytes(make_grid(pixels, nrow=columns, padding=_GAP, pad_value=1.0))


def to_bytes(picture: torch.Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) bytes."""
    return (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def pixels_of(images: torch.Tensor) -> np.ndarray:
    """(N, C, S, S) in [-1, 1] -> (N, S, S, C) bytes."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3 or 4) bytes as a PNG file that is whole or absent."""
    write_whole(path, lambda file: Image.fromarray(pixels).save(file, format="PNG"))


def progress(folder: Path, side: int, most: int = 6) -> tuple[np.ndarray, list[int]] | None:
    """The first row of some of the grids that a training has drawn of the same latents, the first above the last.

    Args:
        folder: samples/ of a run.
        side: of an image in pixels.
        most: rows.

    Returns:
        The picture and the iterations of its rows; None if there are no grids.
    """
    files = sorted(folder.glob("iter_*.png"))
    if not files:
        return None
    chosen = [files[index] for index in np.unique(np.linspace(0, len(files) - 1, most).round().astype(int))]
    rows = [np.asarray(Image.open(path).convert("RGB"))[: side + _GAP] for path in chosen]
    below = np.full_like(rows[0][:_GAP], 255)
    return np.concatenate([*rows, below]), [int(path.stem.removeprefix("iter_")) for path in chosen]


def walk(start: torch.Tensor, end: torch.Tensor, steps: int) -> torch.Tensor:
    """(N, latent) twice -> (N * steps, latent): from each start to its end along a great circle.

    A straight line would pass close to the origin, where normal latents of many entries never are.
    """
    unit_a, unit_b = (z / z.norm(dim=1, keepdim=True).clamp(min=1e-8) for z in (start, end))
    angle = (unit_a * unit_b).sum(1).clamp(-1, 1).acos()[:, None, None]
    t = torch.linspace(0, 1, steps, device=start.device)[None, :, None]
    sine = angle.sin()
    a, b = start[:, None], end[:, None]
    curved = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / sine.clamp(min=1e-6)
    return torch.where(sine > 1e-4, curved, (1 - t) * a + t * b).flatten(0, 1)


def strips(trained: Trained, rows: int, steps: int, seed: int) -> np.ndarray:
    """`rows` walks from one random latent to another, of `steps` images each."""
    z = trained.latents(2 * rows, seed)
    noise, label = z.split([z.shape[1] - len(trained.labels), len(trained.labels)], dim=1)
    # a car between two labels is none; each strip keeps its first
    path = torch.cat([walk(noise[:rows], noise[rows:], steps), label[:rows].repeat_interleave(steps, dim=0)], dim=1)
    return sheet(trained.images(path), steps)


def label_sheet(trained: Trained, seed: int) -> tuple[np.ndarray, str]:
    """The same latents with each label of a conditional generator, in at most eight rows.

    Returns:
        The picture, and a caption that says which labels it shows: of more than 16 the commonest among the crops.
    """
    labels = trained.labels
    ranked = sorted(zip(trained.cfg.MODEL.LABEL.SHARES, labels, strict=True), key=lambda pair: -pair[0])
    commonest = {name for _, name in ranked[:_MOST_LABELS]}
    shown = [name for name in labels if name in commonest]
    one_a_row = len(shown) <= _SIDE
    each = _SIDE if one_a_row else _SIDE // 2
    images = torch.cat([trained.images(trained.latents(each, seed, label=name)) for name in shown])
    which = "each label" if len(shown) == len(labels) else f"the {len(shown)} commonest of {len(labels)} labels"
    where = "from the top" if one_a_row else "two labels a row, from the top left"
    return sheet(images, _SIDE), f"The same latents with {which}, {where} {', '.join(shown)}."


@torch.no_grad()
def attention_sheet(network: nn.Module, inputs: torch.Tensor, images: torch.Tensor) -> np.ndarray | None:
    """Each image beside how much its centre looks at every position, in the first self-attention of `network`.

    Args:
        network: a generator with its latents, or a discriminator with images, in evaluation mode.
        inputs: what `network` takes, N of them.
        images: (N, C, S, S) in [-1, 1].

    Returns:
        The sheet, a blue ring at the position that looks, and brightness for where; None without self-attention.
    """
    module = next((m for m in network.modules() if isinstance(m, SelfAttention)), None)
    if module is None:
        return None
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        network(inputs)
    finally:
        handle.remove()
    height, width = seen[0].shape[-2:]
    rows = module.weights(seen[0])[:, (height // 2) * width + width // 2]  # (N, HW)
    maps = (rows / rows.amax(1, keepdim=True)).view(-1, 1, height, width)
    side = images.shape[-1]
    maps = nn.functional.interpolate(maps, (side, side), mode="bilinear", align_corners=False).cpu()
    pixels = (images[:, :3].float().cpu().clamp(-1, 1) + 1) / 2
    grey = pixels.mean(1, keepdim=True)
    lit = grey * 0.25 + maps * torch.tensor([0.9, 0.6, 0.0]).view(1, 3, 1, 1) * 0.75
    pairs = torch.stack([pixels, lit], dim=1).flatten(0, 1)
    picture = Image.fromarray(to_bytes(make_grid(pairs, nrow=8, padding=_GAP, pad_value=1.0)))
    draw = ImageDraw.Draw(picture)
    for index in range(1, len(pairs), 2):
        x = _GAP + (index % 8) * (side + _GAP) + side // 2
        y = _GAP + (index // 8) * (side + _GAP) + side // 2
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), outline=(0, 114, 178), width=1)
    return np.asarray(picture)


def key_leak(images: torch.Tensor, key: tuple[int, int, int], tolerance: int = 60) -> tuple[np.ndarray, float]:
    """Where the ground is not the key colour: pixels at the border of the image that keying will take for a car.

    Args:
        images: (N, C, S, S) in [-1, 1].
        key: the key colour.
        tolerance: greatest difference of a channel that still counts as the key.

    Returns:
        The sheet with such pixels in orange, and their share of all border pixels, in [0, 1].
    """
    pixels = ((images[:, :3].float().cpu().clamp(-1, 1) + 1) * 127.5).round()
    other = ((pixels - torch.tensor(key).view(1, 3, 1, 1)).abs() > tolerance).any(1)  # (N, S, S)
    border = torch.zeros_like(other)
    border[:, :2] = border[:, -2:] = border[:, :, :2] = border[:, :, -2:] = True
    leak = other & border
    paint = torch.tensor(_LEAK).view(1, 3, 1, 1).expand_as(pixels)
    shown = torch.where(leak[:, None], paint, pixels) / 255
    return to_bytes(make_grid(shown, nrow=8, padding=_GAP, pad_value=1.0)), float(leak.sum() / border.sum())
