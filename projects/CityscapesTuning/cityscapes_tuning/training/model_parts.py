"""What a variant changes in a built model: which weights stay (slides, section 6), heads from other classes, memory."""

import logging
import re
from collections.abc import Mapping, Sequence

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from gan_plugin.errors import UserError
from gan_plugin.rules import check_name

from ..config import FREEZABLE

# heads with the rows that belong to one class; the classifier has one row more, the background's
_CLASSIFIER = re.compile(r"roi_heads\.box_predictor\.(\d+\.)?cls_score\.(weight|bias)$")
_BOXES = re.compile(r"roi_heads\.box_predictor\.(\d+\.)?bbox_pred\.(weight|bias)$")
_MASKS = re.compile(r"roi_heads\.mask_head\.predictor\.(weight|bias)$")
_BOX_NUMBERS = 4
_GIB = 1 << 30


def freeze(model: nn.Module, parts: Sequence[str]) -> list[str]:
    """Take parts of a Mask R-CNN with an FPN out of training.

    Their parameters need no gradient any more, and their BatchNorm layers become FrozenBatchNorm2d, whose statistics
    stay as well: at batch 1 they would follow single images.

    Args:
        model: as Detectron2 builds it, not wrapped.
        parts: names out of FREEZABLE.

    Returns:
        The names of the frozen parameters.

    Raises:
        UserError: a part is unknown, or this model does not have it.
    """
    frozen = []
    for part in parts:
        prefixes = FREEZABLE[check_name("TUNING.FREEZE", part, FREEZABLE)]
        names = [name for name, _ in model.named_parameters() if name.startswith(prefixes)]
        if not names:
            raise UserError(f"TUNING.FREEZE holds {part!r}, but this model has no such part; take it out.")
        frozen += names
    _freeze_batch_norm(model, tuple(prefix for part in parts for prefix in FREEZABLE[part]))
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return frozen


def _freeze_batch_norm(model: nn.Module, prefixes: tuple[str, ...]) -> None:
    if not prefixes:
        return
    layers = [
        name
        for name, module in model.named_modules()
        if name.startswith(prefixes) and isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm)
    ]
    for name in layers:
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, child, FrozenBatchNorm2d.convert_frozen_batchnorm(owner.get_submodule(child)))


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


def limit_memory(gib: float) -> None:
    """Let this process allocate no more than `gib` GiB: of the GPU's memory if there is one, else of its own data.

    What goes beyond raises the usual out-of-memory errors. 0 for no limit.
    """
    if gib <= 0:
        return
    if torch.cuda.is_available():
        whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * _GIB / whole))
        return
    try:
        import resource
    except ImportError:
        logging.getLogger(__name__).warning("This system has no memory limits; TUNING.MEMORY_GB is not enforced.")
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (round(gib * _GIB), most))
