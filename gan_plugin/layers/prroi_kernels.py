# Triton takes a kernel's annotations for its own:
# mypy: allow-untyped-defs
"""Triton kernels of Precise RoI pooling; import only where Triton is installed (`prroi_pool_triton` launches them).

Program (roi * bins_y + bin_y) * bins_x + bin_x, block works on one bin of a RoI and, but for `edges_gradient`, one
block of channels; neighbours run together and share cells in the cache. A bin touches few cells of its RoI, each
once: a tile holds CELLS of them, in any row and column of the map, times CHANNELS. Shared arguments:

    surface: features (N, H, width, channels) contiguous, or their gradient, float32.
    spans: (R, bins_y + bins_x, 2) int64, first cell and number of cells that each row of bins, then each column,
        touches. The first cell of a row counts from the top of the batch's first image: image * H + y.
    weights: (R, bins_y + bins_x, 3, most) float32, the cells' weights in the row or column of bins, and their
        derivatives by its lower and its upper edge.
    pooled: (R, channels, bins_y, bins_x) contiguous, or its gradient.
    CELLS, CHANNELS: powers of two.
"""

import triton
import triton.language as tl
from triton.language import constexpr


@triton.jit
def _rows(bins_y, bins_x):
    """Of this program's bin, the rows in `spans` and `weights` along y and x."""
    program = tl.program_id(0)
    row = (program // (bins_y * bins_x)).to(tl.int64) * (bins_y + bins_x)
    return row + program // bins_x % bins_y, row + bins_y + program % bins_x


@triton.jit
def _size(spans, row_y, row_x):
    """Number of cells, and of columns, that the bin touches."""
    columns = tl.load(spans + 2 * row_x + 1).to(tl.int32)
    return tl.load(spans + 2 * row_y + 1).to(tl.int32) * columns, columns


@triton.jit
def _tile(start, count, columns, spans, row_y, row_x, width, most, CELLS: constexpr):
    """For CELLS of the bin's cells: which are there, index in the map, indices in `weights` along y and x."""
    number = start + tl.arange(0, CELLS)
    step_y, step_x = number // columns, number % columns
    cell = (tl.load(spans + 2 * row_y) + step_y) * width + tl.load(spans + 2 * row_x) + step_x
    return number < count, cell, row_y * 3 * most + step_y, row_x * 3 * most + step_x


@triton.jit
def _pooled_index(channel, channels, bins_y, bins_x):
    """Where this program's bin has each channel in `pooled`."""
    program, bins = tl.program_id(0), bins_y * bins_x
    return ((program // bins).to(tl.int64) * channels + channel) * bins + program % bins


# `most` follows the boxes: specialised, it would have the kernels compiled again and again.
@triton.jit(do_not_specialize=["most"])
def pool(surface, spans, weights, pooled, width, channels, most, bins_y, bins_x, CELLS: constexpr, CHANNELS: constexpr):
    """Write `pooled`."""
    row_y, row_x = _rows(bins_y, bins_x)
    count, columns = _size(spans, row_y, row_x)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    total = tl.zeros([CELLS, CHANNELS], tl.float32)
    for start in range(0, count, CELLS):
        there, cell, at_y, at_x = _tile(start, count, columns, spans, row_y, row_x, width, most, CELLS)
        weight = tl.load(weights + at_y, there, 0) * tl.load(weights + at_x, there, 0)
        wanted = (weight != 0)[:, None] & (channel < channels)[None, :]
        values = tl.load(surface + cell[:, None] * channels + channel[None, :], wanted, 0)
        total += values.to(tl.float32) * weight[:, None]
    tl.store(pooled + _pooled_index(channel, channels, bins_y, bins_x), tl.sum(total, 0), channel < channels)


@triton.jit(do_not_specialize=["most"])
def features_gradient(
    surface, spans, weights, pooled, width, channels, most, bins_y, bins_x, CELLS: constexpr, CHANNELS: constexpr
):
    """Add to `surface`, from the gradient of `pooled`."""
    row_y, row_x = _rows(bins_y, bins_x)
    count, columns = _size(spans, row_y, row_x)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    grad = tl.load(pooled + _pooled_index(channel, channels, bins_y, bins_x), channel < channels, 0).to(tl.float32)
    for start in range(0, count, CELLS):
        there, cell, at_y, at_x = _tile(start, count, columns, spans, row_y, row_x, width, most, CELLS)
        weight = tl.load(weights + at_y, there, 0) * tl.load(weights + at_x, there, 0)
        wanted = (weight != 0)[:, None] & (channel < channels)[None, :]
        share = weight[:, None] * grad[None, :]
        tl.atomic_add(surface + cell[:, None] * channels + channel[None, :], share, wanted, sem="relaxed")


@triton.jit(do_not_specialize=["most"])
def edges_gradient(
    surface, spans, weights, pooled, edges, width, channels, most, bins_y, bins_x, CELLS: constexpr, CHANNELS: constexpr
):
    """Write `edges`, each bin's share in the gradient of its own edges, from the gradient of `pooled`.

    edges: (R, bins_y, bins_x, 4) float32, low y, high y, low x, high x.
    """
    row_y, row_x = _rows(bins_y, bins_x)
    count, columns = _size(spans, row_y, row_x)
    low_y = tl.zeros([CELLS], tl.float32)
    high_y, low_x, high_x = low_y, low_y, low_y
    for start in range(0, count, CELLS):
        there, cell, at_y, at_x = _tile(start, count, columns, spans, row_y, row_x, width, most, CELLS)
        products = tl.zeros([CELLS, CHANNELS], tl.float32)
        for first_channel in range(0, channels, CHANNELS):
            channel = first_channel + tl.arange(0, CHANNELS)
            at_bin = _pooled_index(channel, channels, bins_y, bins_x)
            grad = tl.load(pooled + at_bin, channel < channels, 0).to(tl.float32)
            wanted = there[:, None] & (channel < channels)[None, :]
            values = tl.load(surface + cell[:, None] * channels + channel[None, :], wanted, 0)
            products += values.to(tl.float32) * grad[None, :]
        product = tl.sum(products, 1)
        along_y = product * tl.load(weights + at_x, there, 0)
        along_x = product * tl.load(weights + at_y, there, 0)
        low_y += along_y * tl.load(weights + at_y + most, there, 0)
        high_y += along_y * tl.load(weights + at_y + 2 * most, there, 0)
        low_x += along_x * tl.load(weights + at_x + most, there, 0)
        high_x += along_x * tl.load(weights + at_x + 2 * most, there, 0)
    edge = edges + tl.program_id(0).to(tl.int64) * 4
    tl.store(edge, tl.sum(low_y, 0))
    tl.store(edge + 1, tl.sum(high_y, 0))
    tl.store(edge + 2, tl.sum(low_x, 0))
    tl.store(edge + 3, tl.sum(high_x, 0))
