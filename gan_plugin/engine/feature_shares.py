"""What each group of losses makes up of the gradient at the features that all heads share."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from detectron2.utils.events import get_event_storage
from torch import nn

from gan_plugin.errors import UserError
from gan_plugin.modeling.meta_arch import DISC_LOSS_PREFIX
from gan_plugin.modeling.sources import on_output, tensors_in
from gan_plugin.modeling.stability import gradients_at

OWN, OTHERS = "loss_mask", "others"
# losses of masks, under the names of RoI heads and of criteria; of the auxiliary layers too
_MASK_LOSSES = ("loss_mask", "loss_dice")
_ADVERSARIAL = ("loss_adv_", "loss_rec_")


def backbone_of(model: nn.Module) -> nn.Module:
    """What computes the shared features; DistributedDataParallel is looked through.

    Raises:
        UserError: the model has no such part.
    """
    inner = getattr(model, "module", model)
    backbone = getattr(inner, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise UserError(
            f"SOLVER.GRADIENT_SHARES_PERIOD looks at the features of a backbone, and {type(inner).__name__} has none; "
            "set it to 0."
        )
    return backbone


@contextmanager
def features_seen(model: nn.Module, wanted: bool) -> Iterator[list[torch.Tensor]]:
    """A list of the features that the backbone returns within the block; it stays empty unless they are `wanted`."""
    seen: list[torch.Tensor] = []
    with ExitStack() as stack:
        if wanted:
            on_output(
                stack,
                backbone_of(model),
                lambda output: seen.extend(tensor for tensor in tensors_in(output) if tensor.requires_grad),
            )
        yield seen


def record_shares(losses: Mapping[str, torch.Tensor], features: list[torch.Tensor]) -> None:
    """Put into the event storage, for the losses of one forward pass, whose graph stays whole:

    `feature_share/<group>`, the norm of the group's gradient at the features over the sum of all groups' norms, and
    `feature_cosine/<group>` with that of the masks' own losses. The groups are those losses (`loss_mask`), each
    adversarial term by its name, and all that is left (`others`); discriminators' losses have no part in the features.

    Args:
        losses: scalars by name.
        features: see `features_seen`; nothing is done without any.
    """
    if not features:
        return
    groups: dict[str, list[torch.Tensor]] = {}
    for name, loss in losses.items():
        if not name.startswith(DISC_LOSS_PREFIX):
            own = OWN if name.startswith(_MASK_LOSSES) else OTHERS
            groups.setdefault(name if name.startswith(_ADVERSARIAL) else own, []).append(loss)
    gradients = {group: _gradient(terms, features) for group, terms in groups.items()}
    norms = {group: _product(gradient, gradient).sqrt() for group, gradient in gradients.items()}
    total, storage = torch.stack(list(norms.values())).sum(), get_event_storage()
    for group, norm in norms.items():
        storage.put_scalar(f"feature_share/{group}", (norm / total.clamp(min=1e-30)).item(), smoothing_hint=False)
        if group != OWN and OWN in norms:
            cosine = _product(gradients[group], gradients[OWN]) / (norm * norms[OWN]).clamp(min=1e-30)
            storage.put_scalar(f"feature_cosine/{group}", cosine.item(), smoothing_hint=False)


def _gradient(losses: list[torch.Tensor], features: list[torch.Tensor]) -> list[torch.Tensor | None]:
    """Of the sum of `losses` at each of the features; see `gradients_at`."""
    terms = [loss.float() for loss in losses if loss.requires_grad]
    return gradients_at(torch.stack(terms).sum(), features) if terms else [None] * len(features)


def _product(first: list[torch.Tensor | None], second: list[torch.Tensor | None]) -> torch.Tensor:
    pairs = zip(first, second, strict=True)
    return torch.stack(
        [torch.zeros(())] + [(a * b).sum().cpu() for a, b in pairs if a is not None and b is not None]
    ).sum()
