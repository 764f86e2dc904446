"""Heads trained on other classes: what both sets of classes have in common is kept."""

import re
from collections.abc import Mapping, Sequence

import torch

from gan_plugin.errors import UserError

# each with the rows that belong to one class; the classifier has one row more, the background's
_CLASSIFIER = re.compile(r"roi_heads\.box_predictor\.(\d+\.)?cls_score\.(weight|bias)$")
_BOXES = re.compile(r"roi_heads\.box_predictor\.(\d+\.)?bbox_pred\.(weight|bias)$")
_MASKS = re.compile(r"roi_heads\.mask_head\.predictor\.(weight|bias)$")
_BOX_NUMBERS = 4


def remap_heads(
    weights: Mapping[str, torch.Tensor],
    initial: Mapping[str, torch.Tensor],
    source: Sequence[str],
    target: Sequence[str],
) -> dict[str, torch.Tensor]:
    """`weights` with their heads made for `target` classes; rows of classes that `source` lacks stay initial.

    Of the ten Cityscapes classes COCO has seven; starting those from scratch too, as a plain load does because the
    shapes differ, throws away what the transfer is for.

    Args:
        weights: a Mask R-CNN's state for `source`; class-agnostic layers are left as they are.
        initial: the state of the freshly built model for `target`.
        source, target: class names in the order of the heads.

    Raises:
        UserError: a head of `weights` does not have as many classes as `source` has names.
    """
    pairs = [(target.index(name), index) for index, name in enumerate(source) if name in target]
    remapped = dict(weights)
    for name, tensor in weights.items():
        numbers, extra = _layout(name)
        if name not in initial or not numbers or tensor.shape[0] == numbers:
            continue
        if tensor.shape[0] != numbers * len(source) + extra:
            raise UserError(
                f"The initial weights have {tensor.shape[0]} rows in {name}, which do not fit the {len(source)} "
                "classes of TUNING.SOURCE_CLASSES; name the classes that they were trained on."
            )
        new = initial[name].detach().clone()
        for to, from_ in pairs:
            new[to * numbers : (to + 1) * numbers] = tensor[from_ * numbers : (from_ + 1) * numbers]
        if extra:
            new[-extra:] = tensor[-extra:]
        remapped[name] = new
    return remapped


def _layout(name: str) -> tuple[int, int]:
    """Rows for each class, and rows after all of them; (0, 0) for a layer that knows no classes."""
    if _CLASSIFIER.match(name):
        return 1, 1
    if _BOXES.match(name):
        return _BOX_NUMBERS, 0
    return (1, 0) if _MASKS.match(name) else (0, 0)


def class_names(text: str) -> list[str]:
    """The names that TUNING.SOURCE_CLASSES stands for."""
    if text == "coco":
        from detectron2.data.datasets.builtin_meta import _get_coco_instances_meta

        return list(_get_coco_instances_meta()["thing_classes"])
    return [name.strip() for name in text.split(",") if name.strip()]
