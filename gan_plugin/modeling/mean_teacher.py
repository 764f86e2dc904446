"""Masks of objects that have none, drawn by the model's own average: a mean teacher.

Tarvainen and Valpola 2017, arXiv 1703.01780. The teacher draws in the annotated boxes, so only outlines can be wrong.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import nn

from .masks_of_some import has_mask

# of the instances: (N, h, w), probabilities on a grid over the annotated box
FIELD = "gt_taught"

# a block in which the model holds its average
Average = Callable[[], AbstractContextManager[Any]]


@torch.no_grad()
def ask_teacher(model: Any, inputs: Sequence[dict[str, Any]], average: Average) -> None:
    """Give the instances of training inputs the field FIELD, where an object of the image has no mask.

    Args:
        model: a GeneralizedRCNN in training mode, which is as it was afterwards.
        inputs: of a step.
        average: of the model.
    """
    asked = [item for item in inputs if not bool(has_mask(item["instances"]).all())]
    if not asked:
        return
    given = []
    for item in asked:
        truth = item["instances"]
        boxes = Instances(truth.image_size)
        boxes.pred_boxes, boxes.pred_classes = truth.gt_boxes, truth.gt_classes
        given.append(boxes)
    with average(), _evaluating(model):
        drawn = model.inference(asked, detected_instances=given, do_postprocess=False)
    for item, found in zip(asked, drawn, strict=True):
        item["instances"].set(FIELD, found.pred_masks[:, 0].float().to(item["instances"].gt_classes.device))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # each module by itself, since a user may keep some of them in evaluation mode
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def taught_masks(image: Instances, side: int) -> torch.Tensor:
    """(R, side, side) probabilities in [0, 1]: what the teacher drew of one image's proposals, each in its proposal's
    box, 0 outside of the annotated box. Zeros where it was not asked."""
    boxes = image.proposal_boxes.tensor
    if not image.has(FIELD) or not len(image):
        return boxes.new_zeros(len(image), side, side)
    truth = image.gt_boxes.tensor
    steps = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5) / side
    # from the middle of each cell in pixels to a place in [-1, 1] of the annotated box
    places = []
    for low, high in ((0, 2), (1, 3)):
        pixels = boxes[:, low, None] + steps * (boxes[:, high] - boxes[:, low])[:, None]
        length = (truth[:, high] - truth[:, low]).clamp(min=1e-6)
        places.append(2 * (pixels - truth[:, low, None]) / length[:, None] - 1)
    across, down = places
    grid = torch.stack([across[:, None, :].expand(-1, side, -1), down[:, :, None].expand(-1, -1, side)], dim=-1)
    taught: torch.Tensor = image.get(FIELD)
    return F.grid_sample(taught[:, None].to(grid.dtype), grid, align_corners=False)[:, 0]


def teacher_loss(
    logits: torch.Tensor, taught: torch.Tensor, confidence: float, believed: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross entropy to the teacher's binary mask, of the pixels of which it is sure; a mean over all pixels, as in
    FixMatch (Sohn et al. 2020, arXiv 2001.07685, eq 4), so that a teacher who is sure of little pulls little.

    Args:
        logits: (R, M, M).
        taught: (R, M, M), the teacher's probabilities.
        confidence: in [0.5, 1], how sure it is at least, on either side.
        believed: (R, M, M) bool, the pixels that count; None for all.

    Returns:
        A scalar; without objects a zero that reaches the logits.
    """
    if not len(logits):
        return logits.sum() * 0
    sure = torch.maximum(taught, 1 - taught) >= confidence
    if believed is not None:
        sure = sure & believed
    errors = F.binary_cross_entropy_with_logits(logits.float(), (taught > 0.5).float(), reduction="none")
    return (errors * sure).mean()
