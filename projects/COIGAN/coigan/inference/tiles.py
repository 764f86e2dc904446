"""Images of any size, painted tile by tile with seams that nobody sees."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from gan_plugin.errors import UserError

# (N, 3, T, T) images and (N, n, T, T) masks -> (N, 3, T, T)
PaintTiles = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles of side `tile` begin, so that neighbours share at least `overlap` pixels and all of `length` is seen.

    Raises:
        UserError: the overlap leaves no step.
    """
    if not 0 <= overlap < tile:
        raise UserError(f"Tiles of {tile} pixels cannot overlap by {overlap}; choose 0 or more, less than the tile.")
    if length <= tile:
        return [0]
    steps = -(-(length - tile) // (tile - overlap))
    return [round(place * (length - tile) / steps) for place in range(steps + 1)]


def paint_large(
    paint: PaintTiles, image: torch.Tensor, masks: torch.Tensor, tile: int, overlap: int = 32, batch: int = 8
) -> torch.Tensor:
    """`image` with what `paint` makes of each tile; where tiles overlap they fade into each other.

    Tiles without a mask keep the image's own pixels and are not computed.

    Args:
        paint: paints tiles.
        image: (3, H, W) in [0, 1], any size.
        masks: (n, H, W).
        tile: side of a tile.
        overlap: least width of a seam.
        batch: tiles at a time.

    Returns:
        (3, H, W).
    """
    height, width = image.shape[1:]
    # The smallest reflection that fills a tile; a border of one pixel cannot be reflected further than it is wide.
    bottom, right = max(0, tile - height), max(0, tile - width)
    padded, cover = _pad(image, bottom, right), F.pad(masks, (0, right, 0, bottom))
    total = torch.zeros_like(padded)
    weights = torch.zeros_like(padded[:1])
    for places in _chunks(_places(padded.shape[1], padded.shape[2], tile, overlap), batch):
        tiles = torch.stack([padded[:, y : y + tile, x : x + tile] for y, x in places])
        parts = torch.stack([cover[:, y : y + tile, x : x + tile] for y, x in places])
        asked = parts.flatten(1).amax(1) > 0
        results = tiles.clone()
        if asked.any():
            results[asked] = paint(tiles[asked], parts[asked]).to(results.dtype)
        window = _window(tile, overlap).to(padded)
        for (y, x), result in zip(places, results, strict=True):
            total[:, y : y + tile, x : x + tile] += window * result
            weights[:, y : y + tile, x : x + tile] += window
    return (total / weights)[:, :height, :width]


def _pad(image: torch.Tensor, bottom: int, right: int) -> torch.Tensor:
    while bottom or right:
        down, over = min(bottom, image.shape[1] - 1), min(right, image.shape[2] - 1)
        if not (down or over):
            return F.pad(image[None], (0, right, 0, bottom), mode="replicate")[0]
        image = F.pad(image[None], (0, over, 0, down), mode="reflect")[0]
        bottom, right = bottom - down, right - over
    return image


def _places(height: int, width: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    return [(y, x) for y in starts(height, tile, overlap) for x in starts(width, tile, overlap)]


def _chunks(places: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    for first in range(0, len(places), size):
        yield places[first : first + size]


def _window(tile: int, overlap: int) -> torch.Tensor:
    """(1, T, T): 1 inside, falling towards the border over `overlap` pixels, never 0."""
    distance = torch.minimum(torch.arange(1, tile + 1), torch.arange(tile, 0, -1)).float()
    ramp = (distance / (overlap + 1)).clamp(max=1)
    return (ramp[:, None] * ramp[None, :])[None]
