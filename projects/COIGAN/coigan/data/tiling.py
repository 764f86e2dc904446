"""Cutting an image into tiles that overlap a little and leave no pixel out (thesis 4.2.5)."""

from collections.abc import Iterator

from gan_plugin.errors import UserError


def tile_offsets(length: int, tile: int) -> list[int]:
    """Where the tiles of `tile` pixels begin on a side of `length` pixels.

    There are ceil(length / tile), evenly spaced: 0, 224, ..., 1344 for 1600 and 256. Where they cannot be spaced evenly
    the last one still ends with the side; the thesis' code left up to a tile count of pixels out there.

    Raises:
        UserError: the side is shorter than a tile.
    """
    if tile < 1 or length < tile:
        raise UserError(f"A side of {length} pixels cannot be cut into tiles of {tile}; choose a smaller --tile.")
    count = -(-length // tile)
    return [place * (length - tile) // (count - 1) for place in range(count)] if count > 1 else [0]


def tiles(height: int, width: int, tile: int) -> Iterator[tuple[int, int]]:
    """The (x, y) of the top left pixel of each tile, row by row."""
    for y in tile_offsets(height, tile):
        for x in tile_offsets(width, tile):
            yield x, y
