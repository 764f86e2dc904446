"""Precise RoI pooling (Jiang et al. 2018, IoU-Net, arXiv 1807.11590, equations 5-7), of one map or of a pyramid.

The mean over a bin of the bilinear surface sum_ji F[j, i] hat(y - j) hat(x - i) is separable: with w[i] the mean of
hat(x - i) over the bin's x range, and likewise in y, it is sum_ji F[j, i] w_y[j] w_x[i]. So a RoI costs two small
matrix products with the window of the map that it touches, and nothing is sampled. This file does them in plain
PyTorch, and leaves them to Triton kernels where these run. The weights are in double precision: those of narrow bins
are small differences of large numbers.
"""

import functools
import logging
import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import nn
from torch.autograd.function import once_differentiable

from gan_plugin.errors import UserError

# Narrower bins, in cells, count as empty: their gradient would be rounding noise even in double precision.
MIN_BIN_WIDTH = 1e-9
# Elements gathered at a time (16 MB in float32): bounds the memory, whatever the number and the size of the RoIs.
CHUNK_ELEMENTS = 1 << 22
# RoIs share a chunk if their windows' sides agree within one of these factors; each is padded to the largest of its
# chunk. That of the least work is taken.
SIZE_STEPS = (math.sqrt(2), 2.0, 4.0, math.inf)
# The dozens of small operations that a chunk takes last about as long as to gather so many elements more.
CHUNK_COST = 1 << 17
# What the Triton kernels take; they add up in float32.
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Lin et al. 2017, arXiv 1612.03144, eq 1: a box of 224 pixels belongs to level 4, the one of stride 16.
_CANONICAL_SIZE = 224
_CANONICAL_LEVEL = 4


def bin_edges(low: torch.Tensor, high: torch.Tensor, bins: int) -> torch.Tensor:
    """(R,) box sides to (R, bins + 1) edges; an inverted box gets bins of width 0."""
    fractions = torch.arange(bins + 1, dtype=low.dtype, device=low.device) / bins
    return low[:, None] + (high - low).clamp(min=0)[:, None] * fractions


def windows(edges: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """First cell and number of cells (R,) along an axis of `size` cells whose hat functions reach the box."""
    ends = torch.stack([edges[:, 0].floor(), edges[:, -1].ceil()]).nan_to_num(0).clamp(0, size - 1).long()
    return ends[0], ends[1] - ends[0] + 1


class Axis(NamedTuple):
    """The share of each cell of a window in each bin, along one axis; all (R, bins, cells) or (R, bins, 1)."""

    weights: torch.Tensor
    hat: torch.Tensor  # the hat function at the edges, (R, bins + 1, cells)
    inverse_width: torch.Tensor  # 0 for a bin without width

    @classmethod
    def of(cls, edges: torch.Tensor, cells: torch.Tensor) -> "Axis":
        """Edges (R, bins + 1) and the positions of the cells (R, cells), both in cells."""
        offset = (edges[:, :, None] - cells[:, None, :]).clamp(-1, 1).nan_to_num()
        hat = 1 - offset.abs()
        # The integral of the hat function from -inf to offset is 1/2 + offset - offset |offset| / 2; 1/2 cancels.
        integral = offset * (1 + hat) / 2
        width = edges.diff(dim=1)[:, :, None]
        inverse_width = torch.where((width > MIN_BIN_WIDTH) & width.isfinite(), 1 / width, 0)
        return cls(integral.diff(dim=1) * inverse_width, hat, inverse_width)

    def slopes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Derivatives (R, bins, cells) of the weights with respect to their bin's lower and upper edge."""
        lower = (self.weights - self.hat[:, :-1]) * self.inverse_width
        return lower, (self.hat[:, 1:] - self.weights) * self.inverse_width

    def edge_gradient(self, grad_weights: torch.Tensor) -> torch.Tensor:
        """Chain the gradient of the weights to the edges: (R, bins, cells) to (R, bins + 1)."""
        lower, upper = ((grad_weights * slope).sum(2) for slope in self.slopes())
        return join_edges(lower, upper)


def join_edges(lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """Add up gradients (R, bins) of the bins' lower and upper edges: neighbours share an edge; (R, bins + 1)."""
    return nn.functional.pad(lower, (0, 1)) + nn.functional.pad(upper, (1, 0))


def prroi_pool(
    features: torch.Tensor,
    boxes: torch.Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float,
    aligned: bool = True,
) -> torch.Tensor:
    """Average the bilinearly interpolated map exactly over each bin; differentiable in features and box corners.

    With `aligned`, a pixel (x, y) of the image lies at (x * spatial_scale - 0.5, y * spatial_scale - 0.5) in a frame
    where features[..., j, i] sits at (i, j): cell centres, as in Detectron2's ROIAlignV2. Without, the 0.5 is not
    subtracted, as in the paper's released code. Past the outermost samples the surface falls linearly to 0 within
    one cell and stays 0, so a box may lie partly or wholly outside.

    A box without area, also an inverted or a non-finite one, gives 0 and gradient 0. The gradient cannot be
    differentiated again. The device must know float64.

    On a GPU with Triton, kernels do the work (`prroi_pool_triton`), except for float64 features and under
    `torch.use_deterministic_algorithms`: they add up the features' gradient in no fixed order, so that its last bits
    vary from run to run.

    Args:
        features: (N, C, H, W), floating point; half precisions are accumulated in float32.
        boxes: (R, 5) floating point, rows [image index in the batch, x0, y0, x1, y1] in image pixels.
        output_size: bins (height, width), or one number for both.
        spatial_scale: map cells per image pixel, for example 1/4.
        aligned: see above.

    Returns:
        (R, C, height, width) in the features' dtype.

    Raises:
        UserError: output size or scale not positive.
        ValueError: wrong shapes or dtypes, two devices, or an image index outside of the batch.
    """
    bins = _checked_bins(output_size, spatial_scale)
    _check_tensors(features, boxes)
    # Bin edges need double precision: weights of narrow bins are small differences of large numbers.
    corners = boxes[:, 1:].double() * spatial_scale - (0.5 if aligned else 0.0)
    edges_y = bin_edges(corners[:, 1], corners[:, 3], bins[0])
    edges_x = bin_edges(corners[:, 0], corners[:, 2], bins[1])
    images = boxes[:, 0].detach().long()
    if kernels := _kernels(features):
        return kernels.pool(features, images, edges_y, edges_x)
    compute_dtype = torch.promote_types(features.dtype, torch.float32)
    return _PrRoIPool.apply(features.to(compute_dtype), images, edges_y, edges_x).to(features.dtype)


class PrRoIPool(nn.Module):
    """`prroi_pool` with its settings bound, in the form that Detectron2's ROIPooler expects of a level's pooler.

    Args:
        output_size, spatial_scale, aligned: as in `prroi_pool`.
    """

    def __init__(self, output_size: int | tuple[int, int], spatial_scale: float, aligned: bool = True) -> None:
        super().__init__()
        self.output_size = _checked_bins(output_size, spatial_scale)
        self.spatial_scale = spatial_scale
        self.aligned = aligned

    def forward(self, features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) features and (R, 5) boxes to (R, C, height, width); see `prroi_pool`."""
        return prroi_pool(features, boxes, self.output_size, self.spatial_scale, self.aligned)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, aligned={self.aligned}"


def _checked_bins(output_size: int | tuple[int, int], spatial_scale: float) -> tuple[int, int]:
    bins = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if len(bins) != 2 or min(bins) < 1:
        raise UserError(f"PrRoI pooling's output size is {output_size}; give one or two positive integers.")
    if not 0 < spatial_scale < math.inf:
        raise UserError(f"PrRoI pooling's spatial scale is {spatial_scale}; give a positive number such as 0.25.")
    return bins


def _check_tensors(features: torch.Tensor, boxes: torch.Tensor) -> None:
    if features.dim() != 4 or not features.is_floating_point():
        raise ValueError(f"features must be floating point (N, C, H, W), not {features.dtype} {tuple(features.shape)}")
    if boxes.dim() != 2 or boxes.shape[1] != 5 or not boxes.is_floating_point():
        raise ValueError(f"boxes must be floating point (R, 5), not {boxes.dtype} {tuple(boxes.shape)}")
    if features.device != boxes.device:
        raise ValueError(f"features are on {features.device}, but boxes on {boxes.device}")
    if not ((boxes[:, 0] >= 0) & (boxes[:, 0] < len(features))).all():
        raise ValueError(f"boxes name an image outside of the batch of {len(features)}")


def _kernels(features: torch.Tensor) -> ModuleType | None:
    """`prroi_pool_triton` if it can pool these features, else None."""
    if not features.is_cuda or features.dtype not in KERNEL_DTYPES or features.numel() == 0:
        return None
    # The kernels add up the features' gradient with atomics, in no fixed order.
    return None if torch.are_deterministic_algorithms_enabled() else _kernels_on(features.device, features.dtype)


@functools.cache
def _kernels_on(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """`prroi_pool_triton` if Triton is installed and works on this GPU with features of this type, else None."""
    try:
        from gan_plugin.layers import prroi_pool_triton

        prroi_pool_triton.probe(device, dtype)
    except ModuleNotFoundError:
        return None
    except Exception as error:  # each part of Triton raises its own
        logging.getLogger(__name__).warning(
            "PrRoI pooling of %s does without Triton, which fails here: %s", dtype, error
        )
        return None
    return prroi_pool_triton


class _Chunk(NamedTuple):
    """RoIs whose windows have one common size (h, w)."""

    rois: torch.Tensor  # (r,) indices of the RoIs
    cells: torch.Tensor  # (r * h * w,) indices into the flattened (N, H, W)
    y: Axis
    x: Axis


class _Group(NamedTuple):
    """RoIs with windows of similar size, and the size (height, width) that holds each of them."""

    rois: torch.Tensor
    height: int
    width: int


def _groups(edges_y: torch.Tensor, edges_x: torch.Tensor, shape: torch.Size) -> list[_Group]:
    """Split the RoIs by the size of their windows, so that the work follows the boxes' area and not the map's.

    Args:
        edges_y, edges_x: (R, bins + 1).
        shape: (N, C, H, W) of the map.
    """
    _, channels, height, width = shape
    # One transfer for all sizes: each makes a GPU wait.
    counts = torch.stack([windows(edges_y, height)[1], windows(edges_x, width)[1]]).cpu().numpy()
    return min((_split(counts, step) for step in SIZE_STEPS), key=lambda groups: _work(groups, channels))


def _split(counts: np.ndarray, step: float) -> list[_Group]:
    """Groups of RoIs from the sides (2, R) of their windows, which agree within a factor `step` in a group."""
    kinds, kind = np.unique(np.ceil(np.log(counts) / math.log(step)), axis=1, return_inverse=True)
    members = [np.flatnonzero(kind.ravel() == number) for number in range(kinds.shape[1])]
    return [_Group(torch.from_numpy(rois), *counts[:, rois].max(axis=1).tolist()) for rois in members]


def _work(groups: list[_Group], channels: int) -> int:
    return sum(len(rois) * height * width * channels + CHUNK_COST for rois, height, width in groups)


def _chunks(
    shape: torch.Size, groups: list[_Group], images: torch.Tensor, edges_y: torch.Tensor, edges_x: torch.Tensor
) -> Iterator[_Chunk]:
    """Cut the groups so that a chunk's windows of a channels-last map of `shape` stay below CHUNK_ELEMENTS."""
    _, height, width, channels = shape
    first_y, first_x = windows(edges_y, height)[0], windows(edges_x, width)[0]
    for group, h, w in groups:
        for rois in group.to(images.device).split(max(1, CHUNK_ELEMENTS // (h * w * channels))):
            # A window padded past the border is moved back inside; the added cells have weight 0.
            rows = first_y[rois].clamp(max=height - h)[:, None] + torch.arange(h, device=rois.device)
            columns = first_x[rois].clamp(max=width - w)[:, None] + torch.arange(w, device=rois.device)
            cells = ((images[rois, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]).flatten()
            yield _Chunk(rois, cells, Axis.of(edges_y[rois], rows), Axis.of(edges_x[rois], columns))


class _PrRoIPool(torch.autograd.Function):
    """Chunk by chunk in both directions; the windows are gathered again in backward instead of being kept."""

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, images: torch.Tensor, edges_y: torch.Tensor, edges_x: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(features, images, edges_y, edges_x)
        ctx.groups = _groups(edges_y, edges_x, features.shape)
        bins = edges_y.shape[1] - 1, edges_x.shape[1] - 1
        pooled = features.new_empty(len(images), features.shape[1], *bins)
        if not len(images):
            # of a pyramid's levels, those that no box belongs to are not even looked at
            return pooled
        channels_last = features.permute(0, 2, 3, 1).contiguous()
        flat = channels_last.flatten(0, 2)
        with torch.autocast(features.device.type, enabled=False):
            for chunk in _chunks(channels_last.shape, ctx.groups, images, edges_y, edges_x):
                weights_y, weights_x = chunk.y.weights.to(flat.dtype), chunk.x.weights.to(flat.dtype)
                columns = _pool_rows(flat, chunk, weights_y)[1]  # (r, bins_y, w, C)
                pooled[chunk.rois] = (weights_x[:, None] @ columns).permute(0, 3, 1, 2)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor, torch.Tensor]:
        features, images, edges_y, edges_x = ctx.saved_tensors
        if not len(images):
            return torch.zeros_like(features), None, torch.zeros_like(edges_y), torch.zeros_like(edges_x)
        channels_last = features.permute(0, 2, 3, 1).contiguous()
        flat = channels_last.flatten(0, 2)
        want_features, _, *want_edges = ctx.needs_input_grad
        grad_flat = torch.zeros_like(flat) if want_features else None
        grad_y, grad_x = torch.zeros_like(edges_y), torch.zeros_like(edges_x)
        with torch.autocast(features.device.type, enabled=False):
            for chunk in _chunks(channels_last.shape, ctx.groups, images, edges_y, edges_x):
                weights_y, weights_x = chunk.y.weights.to(flat.dtype), chunk.x.weights.to(flat.dtype)
                grad_bins = grad[chunk.rois].permute(0, 2, 3, 1).contiguous()  # (r, bins_y, bins_x, C)
                grad_columns = (weights_x.mT[:, None] @ grad_bins).flatten(2)  # (r, bins_y, w * C)
                if grad_flat is not None:
                    grad_flat.index_add_(0, chunk.cells, (weights_y.mT @ grad_columns).view(-1, flat.shape[1]))
                if any(want_edges):
                    windows, columns = _pool_rows(flat, chunk, weights_y)
                    grad_x[chunk.rois] = chunk.x.edge_gradient((grad_bins @ columns.mT).sum(1))
                    grad_y[chunk.rois] = chunk.y.edge_gradient(grad_columns @ windows.mT)
        grad_features = None if grad_flat is None else grad_flat.view_as(channels_last).permute(0, 3, 1, 2)
        return grad_features, None, grad_y, grad_x


def _pool_rows(flat: torch.Tensor, chunk: _Chunk, weights_y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gather the windows (r, h, w * C) and average them over the bins in y: (r, bins_y, w, C)."""
    roi_count, bins, height = weights_y.shape
    windows = flat[chunk.cells].view(roi_count, height, -1)
    return windows, (weights_y @ windows).view(roi_count, bins, -1, flat.shape[1])


class MultiLevelPrRoIPool(nn.Module):
    """Pools each box from the level that suits its size, or from all of them.

    Gradients reach the features, and the boxes through the pooling alone, never through the choice of a level.
    """

    def __init__(self, output_size: int, scales: Sequence[float], assignment: str = "level") -> None:
        """
        Args:
            output_size: bins on either side.
            scales: cells per pixel of every level, such as 1/4, 1/8, 1/16, the finest first.
            assignment: "level" for one level per box; "max" for the maximum over all of them, element by element
                (adaptive pooling; Liu et al. 2018, arXiv 1803.01534, section 3.2; Le et al. 2020's code).
        """
        super().__init__()
        self.output_size = output_size
        self.scales = tuple(scales)
        self.assignment = assignment

    def forward(self, features: Sequence[torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
        """Levels (N, C, H_i, W_i), as many as scales, and (R, 5) boxes [image, x0, y0, x1, y1] to (R, C, S, S)."""
        levels = list(zip(features, self.scales, strict=True))
        if self.assignment == "max" or len(levels) == 1:
            pooled = [prroi_pool(feature, boxes, self.output_size, scale) for feature, scale in levels]
            return torch.stack(pooled).amax(dim=0)
        level_of = self._levels_of(boxes.detach()[:, 1:])
        owns = [torch.nonzero(level_of == index).flatten() for index in range(len(levels))]
        # Also from levels without boxes: every process of a distributed run takes the same path.
        pooled = [
            prroi_pool(feature, boxes[own], self.output_size, scale)
            for own, (feature, scale) in zip(owns, levels, strict=True)
        ]
        return torch.cat(pooled).index_select(0, torch.cat(owns).argsort())

    def _levels_of(self, boxes: torch.Tensor) -> torch.Tensor:
        first, last = (round(-torch.tensor(scale).log2().item()) for scale in (self.scales[0], self.scales[-1]))
        return assign_boxes_to_levels([Boxes(boxes)], first, last, _CANONICAL_SIZE, _CANONICAL_LEVEL)
