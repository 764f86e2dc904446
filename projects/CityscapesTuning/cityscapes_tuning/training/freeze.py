"""Which weights a variant does not touch (slides, section 6)."""

from collections.abc import Sequence

from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from gan_plugin.errors import UserError

from ..config import FREEZABLE


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
        if part not in FREEZABLE:
            raise UserError(f"TUNING.FREEZE holds {part!r}, which is unknown; choose from {', '.join(FREEZABLE)}.")
        names = [name for name, _ in model.named_parameters() if name.startswith(FREEZABLE[part])]
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
