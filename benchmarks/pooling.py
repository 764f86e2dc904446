"""Precise RoI pooling beside RoIAlign, forward and backward."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torchvision.ops import roi_align

from benchmarks.timing import Table, interleave, summarise
from gan_plugin.layers.prroi_pool import prroi_pool

SCALE = 1 / 8
BASELINE = "RoIAlign, sampling_ratio 2"


def make_boxes(count: int, images: int, width: int, height: int) -> torch.Tensor:
    """(count, 5) boxes whose sides are 56 to 112 pixels, as a pyramid assigns them to the level of stride 8."""
    generator = torch.Generator().manual_seed(0)
    size = 56 + 56 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - size).clamp(min=1)
    image = torch.randint(0, images, (count, 1), generator=generator)
    return torch.cat([image, corner, corner + size], dim=1)


def measure_pooling(rounds: int, device: str) -> Table:
    """7x7 bins of 256 boxes on 256 channels of 2 images of 512x1024, against RoIAlign with 2x2 samples a bin.

    RoIAlign's backward reaches the features only; ours the boxes as well.
    """
    features = torch.randn(2, 256, 64, 128, device=device, requires_grad=True)
    boxes = make_boxes(256, 2, 1024, 512).to(device)
    learnt = boxes.clone().requires_grad_(True)

    def both_ways(pool: Callable[[], torch.Tensor]) -> Callable[[], Any]:
        return lambda: pool().sum().backward()

    actions = {
        f"RoIAlign, sampling_ratio {ratio}": both_ways(
            partial(roi_align, features, boxes, 7, SCALE, ratio, aligned=True)
        )
        for ratio in (2, 4)
    }
    actions["PrRoI, gradient to features"] = both_ways(lambda: prroi_pool(features, boxes, 7, SCALE))
    actions["PrRoI, gradient to features and boxes"] = both_ways(lambda: prroi_pool(features, learnt, 7, SCALE))
    table = summarise(interleave(actions, rounds, device), BASELINE)
    if device != "cpu":
        _add_bandwidth(table, features, boxes, rounds)
    return table


def _add_bandwidth(table: Table, features: torch.Tensor, boxes: torch.Tensor, rounds: int) -> None:
    """Of PrRoI's forward pass: the share of the device's copying speed at which it moves the bytes that it must."""
    cells = _touched_cells(features, boxes)
    channels, size = features.shape[1], features.element_size()
    needed = cells * channels * size + len(boxes) * channels * 49 * size + len(boxes) * 40
    block = torch.empty(2**28, dtype=torch.uint8, device=features.device)
    actions: dict[str, Callable[[], Any]] = {
        "copy": block.clone,
        "pool": lambda: prroi_pool(features.detach(), boxes, 7, SCALE),
    }
    seconds = {name: min(values) for name, values in interleave(actions, rounds, "cuda").items()}
    copying = 2 * block.numel() / seconds["copy"]
    table["PrRoI, gradient to features"]["forward_bandwidth_share"] = needed / seconds["pool"] / copying


def _touched_cells(features: torch.Tensor, boxes: torch.Tensor) -> int:
    """Distinct cells of the map below all boxes."""
    touched = torch.zeros(features.shape[0], *features.shape[2:], dtype=torch.bool)
    for image, x0, y0, x1, y1 in (boxes.cpu() * torch.tensor([1, *[SCALE] * 4])).tolist():
        touched[int(image), max(0, int(y0 - 0.5)) : int(y1) + 1, max(0, int(x0 - 0.5)) : int(x1) + 1] = True
    return int(touched.sum())
