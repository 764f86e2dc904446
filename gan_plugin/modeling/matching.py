"""Which predicted masks have a matched truth (thesis 5.6.1, A.7)."""

import torch
from detectron2.structures import Instances


def mask_iou(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """IoU in [0, 1] of masks (R, M, M) given as logits (positive means inside) and as truth in [0, 1]; shape (R,).

    Two empty masks have IoU 0.
    """
    predicted, actual = logits > 0, truth > 0.5
    intersection = (predicted & actual).flatten(1).sum(1)
    union = (predicted | actual).flatten(1).sum(1)
    return intersection / union.clamp(min=1)


def greedy_match(instances: list[Instances], iou: torch.Tensor, threshold: float) -> torch.Tensor:
    """Match predictions one to one with annotated instances, in descending order of objectness.

    A proposal's candidate is the instance that Detectron2's matcher gave it, which settles class and box; it takes it
    if their masks overlap by `threshold` and no better scored proposal has it. Proposals that are ground-truth boxes
    added by Detectron2 carry the highest objectness and so come first.

    Args:
        instances: one a image, with fields gt_boxes, gt_classes and, from an RPN, objectness_logits.
        iou: (R,) mask IoU of every proposal with its instance, images one after another.
        threshold: least IoU of a match, in [0, 1].

    Returns:
        (R,) bool.
    """
    matched = torch.zeros_like(iou, dtype=torch.bool)
    start = 0
    for image in instances:
        # Detectron2 gives an image without annotations no gt_ fields at all.
        if len(image):
            own = slice(start, start + len(image))
            matched[own] = _match_image(image, iou[own], threshold)
            start = own.stop
    return matched


def _match_image(image: Instances, iou: torch.Tensor, threshold: float) -> torch.Tensor:
    boxes = image.gt_boxes.tensor
    identity = torch.cat([boxes, image.gt_classes[:, None].to(boxes.dtype)], dim=1)
    truth_of = torch.unique(identity, dim=0, return_inverse=True)[1].tolist()
    scores = image.objectness_logits if image.has("objectness_logits") else iou
    matched = torch.zeros_like(iou, dtype=torch.bool)
    taken: set[int] = set()
    for index in torch.argsort(scores, descending=True, stable=True).tolist():
        if iou[index] >= threshold and truth_of[index] not in taken:
            taken.add(truth_of[index])
            matched[index] = True
    return matched
