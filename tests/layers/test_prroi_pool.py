"""PrRoI pooling against an integral computed from point values of the surface, and against closed formulas."""

import math

import numpy as np
import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from gan_plugin.errors import UserError
from gan_plugin.layers import prroi_pool as module
from gan_plugin.layers.prroi_pool import PrRoIPool, prroi_pool


def _surface(plane: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    """Bilinear interpolation between the four neighbours; samples outside of the plane are 0."""
    height, width = plane.shape
    total = np.zeros((len(ys), len(xs)))
    for step_y in (0, 1):
        for step_x in (0, 1):
            j, i = np.floor(ys).astype(int) + step_y, np.floor(xs).astype(int) + step_x
            inside = ((j >= 0) & (j < height))[:, None] & ((i >= 0) & (i < width))
            values = plane[j.clip(0, height - 1)][:, i.clip(0, width - 1)] * inside
            total += values * (1 - abs(ys - j))[:, None] * (1 - abs(xs - i))
    return total


def _pieces(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Middles and lengths of the parts between the grid lines; the middle rule is exact for a linear function."""
    knots = np.unique([low, *np.arange(np.ceil(low), np.floor(high) + 1), high])
    return (knots[1:] + knots[:-1]) / 2, np.diff(knots)


def _integrate(features: np.ndarray, box: list[float], bins: tuple[int, int], scale: float, shift: float) -> np.ndarray:
    """(C, H, W) and [x0, y0, x1, y1] to (C, *bins): the surface's mean over each bin, 0 without area."""
    x0, y0, x1, y1 = (value * scale - shift for value in box)
    result = np.zeros((len(features), *bins))
    if x1 <= x0 or y1 <= y0:
        return result
    edges_y, edges_x = np.linspace(y0, y1, bins[0] + 1), np.linspace(x0, x1, bins[1] + 1)
    for row in range(bins[0]):
        for column in range(bins[1]):
            ys, heights = _pieces(*edges_y[row : row + 2])
            xs, widths = _pieces(*edges_x[column : column + 2])
            area = heights.sum() * widths.sum()
            for channel, plane in enumerate(features):
                result[channel, row, column] = heights @ _surface(plane, ys, xs) @ widths / area
    return result


# Quarters put many edges on grid lines, where the surface has its kinks, and make boxes of no width or height.
corner = st.one_of(st.integers(-40, 80).map(lambda number: number / 4), st.floats(-12, 25).map(lambda v: round(v, 4)))


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.tuples(st.integers(0, 1), corner, corner, corner, corner), max_size=4),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    bins=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    scale=st.sampled_from([0.25, 0.5, 1.0]),
    aligned=st.booleans(),
)
def test_equals_the_integral(boxes, size, bins, scale, aligned):
    features = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features.requires_grad_()
    rois = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 5).requires_grad_()
    pooled = prroi_pool(features, rois, bins, scale, aligned)
    assert pooled.shape == (len(boxes), 3, *bins)
    for result, (image, *box) in zip(pooled.detach().numpy(), boxes, strict=True):
        truth = _integrate(features[image].detach().numpy(), box, bins, scale, 0.5 * aligned)
        np.testing.assert_allclose(result, truth, rtol=1e-9, atol=1e-9)
    pooled.sum().backward()
    assert features.grad.isfinite().all() and rois.grad.isfinite().all()


@pytest.mark.parametrize("aligned", [True, False])
def test_gradients_equal_finite_differences(aligned):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 2, 6, 9, dtype=torch.float64, generator=generator).requires_grad_()
    images = torch.tensor([[0.0], [1], [1], [0], [1]], dtype=torch.float64)
    corners = [[3.1, 4.3, 30.7, 21.9], [-9.3, -7.1, 50.3, 40.7], [9.1, 5.3, 9.9, 9.7], [33.3, -5.1, 47.7, 13.3]]
    corners = torch.tensor([*corners, [90.1, 90.3, 99.7, 95.9]], dtype=torch.float64).requires_grad_()

    def pool(features, corners):
        return prroi_pool(features, torch.cat([images, corners], 1), (2, 3), 0.25, aligned)

    assert torch.autograd.gradcheck(pool, (features, corners))


def test_limit_of_roi_align():
    features = torch.randn(2, 4, 20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    boxes = torch.tensor([[0, 9.7, 12.1, 100.3, 61.9], [1, 20.0, 30, 24, 76], [1, 2.1, 2, 118, 78]]).double()
    errors = [
        (prroi_pool(features, boxes, (5, 7), 0.25) - roi_align(features, boxes, (5, 7), 0.25, samples, True))
        .abs()
        .max()
        for samples in (4, 16, 64)
    ]
    assert errors[0] > 8 * errors[1] > 64 * errors[2]  # the middle rule's error falls with the square of the step
    assert errors[2] < 1e-3


def test_ramp_gives_the_bin_centres():
    """The mean of a linear function over a bin is its value at the centre, at any distance from the origin."""
    ramp = torch.stack([torch.arange(200.0).expand(150, 200), torch.arange(150.0)[:, None].expand(150, 200)])[None]
    boxes = torch.tensor([[0, 2.0, 2, 798, 598], [0, 700.0, 500, 701, 502], [0, 700.0, 500, 700.01, 500.01]])
    x, y = prroi_pool(ramp, boxes, 4, 0.25).unbind(1)
    centres = (torch.arange(4) + 0.5) / 4
    _, x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    expected_x, expected_y = ((x0 + (x1 - x0) * centres) / 4 - 0.5), ((y0 + (y1 - y0) * centres) / 4 - 0.5)
    torch.testing.assert_close(x, expected_x[:, None].expand(3, 4, 4), rtol=2e-6, atol=0)
    torch.testing.assert_close(y, expected_y[:, :, None].expand(3, 4, 4), rtol=2e-6, atol=0)


def test_moving_a_box_on_a_ramp_has_slope_one():
    ramp = torch.arange(200.0).expand(1, 1, 150, 200)
    boxes = torch.tensor([[0, 700.0, 500, 700.01, 502], [0, 13.0, 20, 400, 300]], requires_grad=True)
    prroi_pool(ramp, boxes, 1, 0.25).sum().backward()
    expected = torch.tensor([0, 0.125, 0, 0.125, 0]).expand(2, 5)
    torch.testing.assert_close(boxes.grad, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "box",
    [
        [8, 8, 8, 20],
        [8, 8, 20, 8],
        [20, 20, 8, 8],
        [-90, 0, -50, 9],
        [8, 8, math.nan, 20],
        [math.nan] * 4,
        [-math.inf, 2, math.inf, 9],
        [0, 0, 1e-38, 1e-38],
    ],
)
def test_boxes_without_overlap_give_zero_and_no_gradient(box):
    features = torch.randn(1, 3, 10, 12, requires_grad=True)
    boxes = torch.tensor([[0, *box]], dtype=torch.float32, requires_grad=True)
    pooled = prroi_pool(features, boxes, 7, 0.25, aligned=False)
    pooled.sum().backward()
    for tensor in (pooled, features.grad, boxes.grad):
        assert torch.equal(tensor, torch.zeros_like(tensor))


def test_no_boxes_keep_the_graph():
    features = torch.randn(2, 3, 10, 12, requires_grad=True)
    boxes = torch.zeros(0, 5, requires_grad=True)
    pooled = prroi_pool(features, boxes, (7, 5), 0.25)
    assert pooled.shape == (0, 3, 7, 5)
    pooled.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features)) and boxes.grad.shape == (0, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(dtype):
    features = (torch.rand(1, 4, 60, 80, generator=torch.Generator().manual_seed(3)) + 1).to(dtype).requires_grad_()
    boxes = torch.tensor([[0, 3.0, 5, 300, 230], [0, 20, 30, 90, 80]])
    exact = prroi_pool(features.detach().double(), boxes, 2, 0.25)
    with torch.autocast("cpu", torch.bfloat16):
        half, single = prroi_pool(features, boxes, 2, 0.25), prroi_pool(features.detach().float(), boxes, 2, 0.25)
    assert half.dtype == dtype and torch.equal(half, single.to(dtype))
    torch.testing.assert_close(single.double(), exact, rtol=1e-6, atol=0)
    # 500 equal boxes: summed in half precision their gradients would stall.
    single = features.detach().float().requires_grad_()
    for inputs in (features, single):
        prroi_pool(inputs, boxes[1:].repeat(500, 1), 1, 0.25).sum().backward()
    assert torch.equal(features.grad, single.grad.to(dtype))
    torch.testing.assert_close(single.grad.double().sum(), torch.tensor(2000.0).double(), rtol=1e-5, atol=0)


def test_result_does_not_depend_on_the_chunks(monkeypatch):
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(3, 5, 16, 24, dtype=torch.float64, generator=generator).requires_grad_()
    start = torch.rand(40, 2, generator=generator) * 60 - 10
    end = start + torch.rand(40, 2, generator=generator) ** 2 * 80
    boxes = torch.cat([torch.arange(40)[:, None] % 3, start, end], 1).requires_grad_()
    grad_output = torch.randn(40, 5, 3, 3, dtype=torch.float64, generator=generator)

    def run():
        pooled = prroi_pool(features, boxes, 3, 0.25)
        return pooled, *torch.autograd.grad(pooled, (features, boxes), grad_output)

    whole = run()
    for elements, step in ((1, 100.0), (1 << 22, 1.01), (1 << 22, math.inf)):
        monkeypatch.setattr(module, "CHUNK_ELEMENTS", elements)
        monkeypatch.setattr(module, "SIZE_STEPS", (step,))
        for ours, theirs in zip(run(), whole, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_takes_the_place_of_detectron2s_pooler():
    features = [torch.randn(2, 3, 32, 32), torch.randn(2, 3, 16, 16)]
    boxes = [Boxes(torch.tensor([[4.0, 4, 40, 40], [0, 0, 120, 128]])), Boxes(torch.tensor([[9.0, 9, 128, 100]]))]
    pooler = ROIPooler(7, [1 / 4, 1 / 8], 0, "ROIAlignV2", canonical_box_size=28, canonical_level=2)
    pooler.level_poolers = torch.nn.ModuleList(PrRoIPool(7, scale) for scale in (1 / 4, 1 / 8))
    rows = torch.tensor([[0, 4.0, 4, 40, 40], [0, 0, 0, 120, 128], [1, 9, 9, 128, 100]])
    expected = [prroi_pool(features[0], rows[:1], 7, 1 / 4), prroi_pool(features[1], rows[1:], 7, 1 / 8)]
    assert torch.equal(pooler(features, boxes), torch.cat(expected))


def test_mistakes_are_named():
    features, boxes = torch.zeros(2, 3, 8, 8), torch.zeros(1, 5)
    with pytest.raises(UserError, match="output size is 0"):
        PrRoIPool(0, 0.25)
    with pytest.raises(UserError, match="spatial scale is -1"):
        prroi_pool(features, boxes, 7, -1)
    with pytest.raises(ValueError, match=r"boxes must be floating point \(R, 5\)"):
        prroi_pool(features, boxes[:, :4], 7, 0.25)
    with pytest.raises(ValueError, match="features must be floating point"):
        prroi_pool(features.long(), boxes, 7, 0.25)
    for image in (2, -1, math.nan):
        with pytest.raises(ValueError, match="outside of the batch of 2"):
            prroi_pool(features, torch.tensor([[image, 0, 0, 9, 9.0]]), 7, 0.25)


def test_windows_of_a_group_agree_within_the_step():
    heights = np.array([9, 1, 5, 3, 7, 15])
    groups = module._split(np.stack([heights, np.full(6, 2)]), 2.0)
    # powers of 2 bound them: up to 1, 4, 8 and 16
    assert [(rois.tolist(), height, width) for rois, height, width in groups] == [
        ([1], 1, 2),
        ([3], 3, 2),
        ([2, 4], 7, 2),
        ([0, 5], 15, 2),
    ]
