"""Samples of query-based models, such as Mask2Former and MaskDINO, whose criterion matches queries to objects."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

import torch
from detectron2.layers import ROIAlign, ShapeSpec
from torch import nn

from gan_plugin.errors import UserError

from .mask_sampling import MaskSampler
from .matching import mask_iou
from .samples import MaskSamples
from .sources import SAMPLE_SOURCE_REGISTRY, Found, SampleSource, on_call, on_input

# the criterion's method that is given the matched masks: (outputs, targets, indices, number of masks)
_METHOD = "loss_masks"
# pixels of the image to one of the mask features, where nothing says otherwise
_STRIDE = 4


@SAMPLE_SOURCE_REGISTRY.register()
class QuerySource(SampleSource):
    """Masks of the last decoder layer's matched queries and their truth, both cut to the object's box."""

    def __init__(self, model: nn.Module, sampler: MaskSampler, players: Collection[str]) -> None:
        super().__init__(model, sampler, players)
        if sampler.box_only:
            raise UserError(
                f"MODEL.GAN.MASK.BOX_ONLY is for models with RoI heads, and {type(model).__name__} has none; set it to "
                "False."
            )
        if "box" in self.players:
            raise UserError(
                f"MODEL.GAN.BOX.ENABLED is for models with RoI heads, and {type(model).__name__} has none; set it to "
                "False."
            )

    def __str__(self) -> str:
        return f"criterion.{_METHOD}"

    @classmethod
    def fits(cls, model: nn.Module) -> bool:
        return callable(getattr(getattr(model, "criterion", None), _METHOD, None))

    def levels(self, model: nn.Module) -> list[ShapeSpec]:
        """The one level of the pixel decoder's mask features."""
        head: Any = getattr(model, "sem_seg_head", None)
        channels = getattr(getattr(getattr(head, "pixel_decoder", None), "mask_features", None), "out_channels", None)
        if channels is None:
            raise UserError(
                f"A discriminator looks at mask features, and {type(model).__name__} has no sem_seg_head.pixel_decoder."
                "mask_features; set MODEL.GAN.MASK.DISCRIMINATOR to PixelMaskDiscriminator."
            )
        return [ShapeSpec(channels=channels, stride=getattr(head, "common_stride", _STRIDE))]

    def watch(self, model: nn.Module, stack: ExitStack, features: bool) -> Callable[[torch.Tensor], Found]:
        calls: list[tuple[Any, ...]] = []
        maps: list[torch.Tensor] = []
        on_call(stack, model.criterion, _METHOD, lambda arguments, result: calls.append(arguments))
        if features:
            predictor: Any = model.sem_seg_head.predictor  # type: ignore[union-attr]
            # (multi-scale features, mask features, ...)
            on_input(stack, predictor, lambda arguments: maps.append(arguments[1].detach()))

        def make(loss: torch.Tensor) -> Found:
            if not calls:
                raise UserError(
                    "MODEL.GAN.ENABLED needs masks to learn from, and the criterion has asked for no loss of them; set "
                    "it to False."
                )
            # The last layer comes first; after it those before it, and queries that are no predictions.
            outputs, targets, indices = calls[0][:3]
            return {"mask": self._samples(outputs["pred_masks"], targets, indices, loss, tuple(maps[-1:]))}

        return make

    def _samples(
        self,
        drawn: torch.Tensor,
        targets: list[dict[str, Any]],
        indices: list[Any],
        loss: torch.Tensor,
        features: tuple[torch.Tensor, ...],
    ) -> MaskSamples:
        """
        Args:
            drawn: (N, Q, h, w) logits of all queries.
            targets: of each image, masks (T, H, W) and labels (T,).
            indices: of each image, the matched queries and their objects.
        """
        if drawn.dim() != 4:
            raise UserError(
                f"MODEL.GAN.ENABLED needs masks of images, and this model draws masks of the shape "
                f"{tuple(drawn.shape[2:])}; set it to False."
            )
        device = drawn.device
        pairs = [(queries.to(device), objects.to(device)) for queries, objects in indices]
        images = torch.cat([torch.full_like(queries, number) for number, (queries, _) in enumerate(pairs)])
        classes = torch.cat([t["labels"].to(device)[objects] for t, (_, objects) in zip(targets, pairs, strict=True)])
        masks = torch.cat([t["masks"].to(device)[objects] for t, (_, objects) in zip(targets, pairs, strict=True)])
        logits, side = drawn[images, torch.cat([queries for queries, _ in pairs])], self.sampler.side
        if not len(logits):
            empty = logits.view(0, side, side) if logits.numel() else logits.flatten().view(0, side, side)
            none = torch.zeros(0, dtype=torch.bool, device=device)
            rois = torch.zeros(0, 5, device=device)
            return MaskSamples(empty, empty.detach(), none, classes, rois, features, loss, drawn, drawn)
        with torch.no_grad():
            boxes = _boxes_of(masks, self.sampler.margin)
            truth = _cut(masks.to(logits.dtype), boxes, side, 1.0)
            if self.sampler.real == "binary":
                truth = (truth >= 0.5).to(logits.dtype)
        cut = _cut(logits, boxes, side, logits.shape[-1] / masks.shape[-1])
        matched = torch.ones(len(cut), dtype=torch.bool, device=device)
        if self.sampler.matching == "greedy":
            # one query to one object already
            matched = mask_iou(cut, truth) >= self.sampler.match_iou
        rois = torch.cat([images[:, None].to(boxes.dtype), boxes], dim=1)
        return MaskSamples(cut, truth, matched, classes, rois, features, loss, drawn, drawn)


def _boxes_of(masks: torch.Tensor, margin: float) -> torch.Tensor:
    """(R, 4) boxes in pixels of masks (R, H, W), wider on each side by `margin` times their side, within the image."""
    sides = []
    for axis in (1, 2):
        hit = (masks > 0).any(dim=axis)
        length = hit.shape[1]
        first = torch.where(hit.any(1), hit.float().argmax(1), torch.zeros_like(hit[:, 0], dtype=torch.long)).float()
        last = (length - hit.flip(1).float().argmax(1)).float()
        more = margin * (last - first)
        sides.append(((first - more).clamp(min=0), (last + more).clamp(max=length)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1)


def _cut(masks: torch.Tensor, boxes: torch.Tensor, side: int, scale: float) -> torch.Tensor:
    """(R, side, side): each mask of (R, h, w) in its box, given in units of 1 / scale."""
    numbers = torch.arange(len(masks), device=masks.device, dtype=boxes.dtype)[:, None]
    align = ROIAlign((side, side), scale, 0, aligned=True)
    return align(masks[:, None].float(), torch.cat([numbers, boxes], dim=1).float())[:, 0].to(masks.dtype)
