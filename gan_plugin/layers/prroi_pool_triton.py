"""Precise RoI pooling with Triton kernels on a GPU; `prroi_pool` chooses it by itself.

The same sums as in plain PyTorch: weights in double precision, rounded to float32, in which everything is added up.
But a bin reads only the cells that it touches, in the features' own precision, and nothing is gathered in between.
The features' gradient is added up with atomics: its last bits differ from run to run. All else is deterministic.
"""

from typing import Any

import torch
import triton
from torch.autograd.function import once_differentiable

from gan_plugin.layers import prroi_kernels
from gan_plugin.layers.prroi_pool import Axis, bin_edges, join_edges, windows

# 16 cells hold most bins of an FPN level at once; 128 channels in float32 are 16 bytes a thread and row of a warp.
CELLS, CHANNELS = 16, 128


def pool(features: torch.Tensor, images: torch.Tensor, edges_y: torch.Tensor, edges_x: torch.Tensor) -> torch.Tensor:
    """Mean of the surface over each bin; differentiable in features and edges.

    Args:
        features: (N, C, H, W), not empty, float32 or a half precision; fastest if channels-last.
        images: (R,) int64, in [0, N).
        edges_y, edges_x: (R, bins + 1) float64, in cells, as from `prroi_pool.bin_edges`.

    Returns:
        (R, C, bins_y, bins_x) contiguous, in the features' dtype.
    """
    return _Pool.apply(features, images, edges_y, edges_x)


def probe(device: torch.device, dtype: torch.dtype) -> None:
    """Run a kernel once; raises whatever stands against it.

    Triton needs a C compiler and a GPU that is not too old; for bfloat16, Triton 3.2 wants compute capability 8.
    """
    edges = bin_edges(torch.zeros(1, device=device).double(), torch.ones(1, device=device).double(), 1)
    pool(
        torch.ones(1, 1, 2, 2, device=device, dtype=dtype), torch.zeros(1, device=device).long(), edges, edges
    ).sum().item()


def _tables(
    images: torch.Tensor, edges_y: torch.Tensor, edges_x: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernels' `spans` and `weights`: each row or column of bins is treated as a box of one bin."""
    rows = torch.cat([edges_y.unfold(1, 2, 1), edges_x.unfold(1, 2, 1)], 1)  # (R, bins_y + bins_x, 2)
    bins_y = edges_y.shape[1] - 1
    spans_y, spans_x = (
        torch.stack(windows(part.flatten(0, 1), size), 1).view_as(part)
        for part, size in ((rows[:, :bins_y], height), (rows[:, bins_y:], width))
    )
    spans = torch.cat([spans_y, spans_x], 1)
    # The largest span decides the tables' size; reading it makes the GPU wait, once.
    most = int(spans[..., 1].amax()) if len(spans) else 0
    cells = spans[..., :1] + torch.arange(most, device=spans.device)
    axis = Axis.of(rows.flatten(0, 1), cells.flatten(0, 1))  # (R * (bins_y + bins_x), 1, most)
    weights = torch.cat([axis.weights, *axis.slopes()], 1).float()
    spans[:, :bins_y, 0] += images[:, None] * height
    return spans, weights


class _Pool(torch.autograd.Function):
    """Forward with `prroi_kernels.pool`, backward with the other two, each only if its gradient is wanted."""

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, images: torch.Tensor, edges_y: torch.Tensor, edges_x: torch.Tensor
    ) -> torch.Tensor:
        spans, weights = _tables(images, edges_y, edges_x, *features.shape[2:])
        channels_last = features.permute(0, 2, 3, 1).contiguous()
        pooled = features.new_empty(len(images), features.shape[1], edges_y.shape[1] - 1, edges_x.shape[1] - 1)
        _launch(prroi_kernels.pool, channels_last, spans, weights, pooled)
        ctx.map_shape, ctx.dtype = channels_last.shape, features.dtype
        # Proposals are mostly detached; then nothing of the map's size has to wait for backward.
        ctx.save_for_backward(spans, weights, channels_last if any(ctx.needs_input_grad[2:]) else None)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        spans, weights, channels_last = ctx.saved_tensors
        grad = grad.contiguous()
        grad_features = grad_y = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_map = torch.zeros(ctx.map_shape, dtype=torch.float32, device=grad.device)
            _launch(prroi_kernels.features_gradient, grad_map, spans, weights, grad)
            grad_features = grad_map.to(ctx.dtype).permute(0, 3, 1, 2)
        if channels_last is not None:
            shares = torch.empty(len(grad), *grad.shape[2:], 4, dtype=torch.float32, device=grad.device)
            _launch(prroi_kernels.edges_gradient, channels_last, spans, weights, grad, shares)
            low_y, high_y, low_x, high_x = shares.double().unbind(-1)
            grad_y = join_edges(low_y.sum(2), high_y.sum(2))
            grad_x = join_edges(low_x.sum(1), high_x.sum(1))
        return grad_features, None, grad_y, grad_x


def _launch(
    kernel: Any, channels_last: torch.Tensor, spans: torch.Tensor, weights: torch.Tensor, *pooled: torch.Tensor
) -> None:
    """Run a kernel for every bin of pooled[0] and, unless it goes through all channels, every block of channels."""
    width, channels = channels_last.shape[2:]
    bins_y, bins_x = pooled[0].shape[2:]
    block = min(CHANNELS, max(16, triton.next_power_of_2(channels)))
    blocks = 1 if kernel is prroi_kernels.edges_gradient else triton.cdiv(channels, block)
    programs = len(spans) * bins_y * bins_x
    if programs == 0:
        return
    sizes = width, channels, weights.shape[2], bins_y, bins_x
    with torch.cuda.device_of(channels_last):
        kernel[programs, blocks](channels_last, spans, weights, *pooled, *sizes, CELLS=CELLS, CHANNELS=block)
