"""Samples of any model with RoI heads: masks where the mask head draws its logits, boxes at the box predictor."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads import select_foreground_proposals
from detectron2.projects.point_rend.mask_head import ImplicitPointRendMaskHead, PointRendMaskHead
from detectron2.projects.point_rend.point_features import generate_regular_grid_point_coords
from detectron2.structures import Instances
from torch import nn

from gan_plugin.errors import UserError

from .masks_of_some import split_masks
from .samples import BoxSamples, MaskSampler, MaskSamples, crop_truth, logits_of_true_class
from .sources import SAMPLE_SOURCE_REGISTRY, Found, SampleSource, on_call, on_input, on_output, tensors_in

# The discriminator sees the point head on a grid so many times finer than the coarse head's.
_REFINEMENT = 4
# what the last layer of a mask head is called, here and elsewhere
_NAMES = ("predictor", "mask_predictor")
_LOGITS = "MODEL.GAN.MASK.LOGITS"
_NO_SIDE = 28


def dense_logits(
    head: Any, features: dict[str, torch.Tensor], instances: list[Instances], coarse: torch.Tensor
) -> torch.Tensor:
    """(R, C, M, M) logits of a PointRendMaskHead on a regular grid over each box.

    PointRend trains on scattered points. A discriminator gets the point head's answers on the grid that inference
    starts from, 28x28 with the usual coarse 7x7 (the coarse head's own where the point head is off).

    Args:
        head: the mask head.
        features: what it was given.
        instances: the foreground proposals, one a image.
        coarse: (R, C, m, m), what its coarse head has drawn of them.
    """
    if not head.mask_point_on:
        return coarse
    side = coarse.shape[-1] * _REFINEMENT
    points = generate_regular_grid_point_coords(len(coarse), side, coarse.device)
    fine = head._point_pooler(features, [image.proposal_boxes for image in instances], points)
    logits = head._get_point_logits(fine, points, coarse)
    return logits.view(len(logits), logits.shape[1], side, side)


@ROI_MASK_HEAD_REGISTRY.register()
class AdversarialPointRendMaskHead(PointRendMaskHead):
    """PointRendMaskHead, which however fails in training where no image of a batch has an instance; here the losses
    are zeros then, which reach every parameter."""

    def forward(self, features: dict[str, torch.Tensor], instances: list[Instances]) -> Any:
        """As PointRendMaskHead.forward."""
        if not self.training or any(len(image) for image in instances):
            return super().forward(features, instances)
        coarse = self.coarse_head(self._roi_pooler(features, [image.proposal_boxes for image in instances]))
        losses = {"loss_mask": coarse.sum() * 0}
        if self.mask_point_on:
            losses["loss_mask_point"] = dense_logits(self, features, instances, coarse).sum() * 0
        return losses


@SAMPLE_SOURCE_REGISTRY.register()
class RoISource(SampleSource):
    """Foreground proposals of the RoI heads, the logits of their masks, their decoded boxes, and the truth of both."""

    def __init__(self, model: nn.Module, sampler: MaskSampler, players: Collection[str]) -> None:
        super().__init__(model, sampler, players)
        heads: Any = model.roi_heads
        self.layer = ""
        if "mask" in self.players and not (_draws_points(heads) and not sampler.logits):
            self.layer = _logits_layer(model, sampler.logits)
        predictor = _box_predictor(heads)
        if "box" in self.players and not all(hasattr(predictor, part) for part in ("losses", "box2box_transform")):
            raise UserError(
                f"MODEL.GAN.BOX.ENABLED needs a box predictor like Detectron2's FastRCNNOutputLayers, and "
                f"{type(heads).__name__} has none to observe; set it to False."
            )

    def __str__(self) -> str:
        where = {"mask": self.layer or "roi_heads.mask_head on a grid", "box": "roi_heads.box_predictor"}
        return " and ".join(where[player] for player in sorted(self.players))

    @classmethod
    def fits(cls, model: nn.Module) -> bool:
        return isinstance(getattr(model, "roi_heads", None), nn.Module)

    def levels(self, model: nn.Module) -> list[ShapeSpec]:
        shapes = model.backbone.output_shape()  # type: ignore[operator, union-attr]
        return [shapes[name] for name in _level_names(model.roi_heads)]

    def mask_head(self, model: nn.Module) -> nn.Module:
        names = (self.layer or "roi_heads.mask_head").split(".")
        return model.get_submodule(".".join(names[: 2 if names[0] == "roi_heads" else 1]))

    def watch(self, model: nn.Module, stack: ExitStack, features: bool) -> Callable[[torch.Tensor], Found]:
        heads: Any = model.roi_heads
        levels = _level_names(heads) if features else []
        seen = _Seen(heads)
        on_input(stack, heads, seen.features_of(levels))
        if self.sampler.box_only:
            split_masks(stack, heads, seen.begin if "mask" in self.players else None)
        makers: dict[str, Callable[[torch.Tensor], Any]] = {}
        if "mask" in self.players:
            if hasattr(heads, "label_and_sample_proposals"):
                on_call(stack, heads, "label_and_sample_proposals", seen.sampled_proposals)
            if isinstance(head := _mask_head(heads), nn.Module):
                on_input(stack, head, lambda arguments: seen.given_proposals(stack, arguments))
            makers["mask"] = self._grids(model, stack, seen) if self.layer else self._points(stack, seen, head)
        if "box" in self.players:
            predictor = _box_predictor(heads)
            on_call(stack, predictor, "losses", seen.predicted_boxes)
            makers["box"] = lambda loss: seen.decoded(predictor, loss)
        return lambda loss: {player: make(loss) for player, make in makers.items()}

    def _grids(self, model: nn.Module, stack: ExitStack, seen: "_Seen") -> Callable[[torch.Tensor], MaskSamples]:
        on_output(stack, model.get_submodule(self.layer), lambda output: seen.drawn_grids(self.layer, output))

        def make(loss: torch.Tensor) -> MaskSamples:
            if not any(part.drawn for part in seen.parts):
                seen.nothing_drawn(self.layer, loss)
            drawn = [part for part in seen.parts if part.drawn]
            return MaskSamples.joined([self._samples(seen, part, part.drawn[0], loss) for part in drawn])

        return make

    def _points(self, stack: ExitStack, seen: "_Seen", head: Any) -> Callable[[torch.Tensor], MaskSamples]:
        for layer in (head.coarse_head, head.point_head) if head.mask_point_on else (head.coarse_head,):
            on_output(stack, layer, lambda output: seen.parts[-1].drawn.append(output))

        def make(loss: torch.Tensor) -> MaskSamples:
            made = []
            for part in seen.parts:
                part.proposals = part.given
                dense = dense_logits(head, part.maps, part.given, part.drawn[0])
                made.append(self._samples(seen, part, dense, loss))
            return MaskSamples.joined(made)

        return make

    def _samples(self, seen: "_Seen", part: "_Part", logits: Any, loss: torch.Tensor) -> MaskSamples:
        crops = torch.cat([seen.crop(image, logits.shape[-1]) for image in part.proposals])
        drawn = logits_of_true_class(logits, part.proposals)
        return self.sampler(drawn, part.proposals, crops, loss, part.drawn[-1], seen.features)


class _Part:
    """What the mask head has shown when it was run once; it may be run for some objects after the others.

    Attributes:
        given, sampled: the proposals that it was given, and those that the RoI heads have sampled.
        maps: the features that it was given, by level, if it was given such.
        drawn: what its layers have drawn, one after another.
        proposals: of which they have drawn it.
    """

    def __init__(self, sampled: Any = None) -> None:
        self.given: Any = None
        self.sampled: Any = sampled
        self.maps: Any = None
        self.drawn: list[torch.Tensor] = []
        self.proposals: list[Instances] = []


class _Seen:
    """What one forward pass has shown."""

    def __init__(self, heads: Any) -> None:
        self.heads = heads
        self.features: tuple[torch.Tensor, ...] = ()
        self.parts = [_Part()]
        self.is_split = False
        self.boxes: Any = None
        self.crops: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def features_of(self, levels: list[str]) -> Callable[[tuple[Any, ...]], None]:
        def see(arguments: tuple[Any, ...]) -> None:
            maps = next((value for value in arguments if isinstance(value, dict)), {})
            self.features = tuple(maps[level].detach() for level in levels if level in maps)

        return see

    def begin(self, proposals: list[Instances]) -> None:
        """From now on the mask head is run for some of the proposals only."""
        self.parts = [*(self.parts if self.is_split else ()), _Part(proposals)]
        self.is_split = True

    def given_proposals(self, stack: ExitStack, arguments: tuple[Any, ...]) -> None:
        part = self.parts[-1]
        part.maps = next((value for value in arguments if isinstance(value, dict)), None)
        for value in arguments:
            if isinstance(value, list | tuple) and value and all(isinstance(image, Instances) for image in value):
                part.given = list(value)
                for image in part.given:
                    if image.has("gt_masks") and hasattr(image.gt_masks, "crop_and_resize"):
                        self._keep_crops(stack, image.gt_masks)

    def sampled_proposals(self, arguments: tuple[Any, ...], result: Any) -> None:
        # some heads return losses along with them
        lists = [result, *result] if isinstance(result, tuple) else [result]
        for value in lists:
            if isinstance(value, list) and value and all(isinstance(image, Instances) for image in value):
                self.parts[-1].sampled = value
                return

    def predicted_boxes(self, arguments: tuple[Any, ...], result: Any) -> None:
        self.boxes = arguments[:2]

    def decoded(self, predictor: Any, loss: torch.Tensor) -> BoxSamples:
        """Samples of what the box predictor has predicted."""
        if self.boxes is None:
            raise UserError("MODEL.GAN.BOX.ENABLED is True, but the box predictor computes no loss; set it to False.")
        predictions, proposals = self.boxes
        return box_samples(predictor, predictions, proposals, loss, self.features)

    def drawn_grids(self, layer: str, output: Any) -> None:
        """Take the logits that a layer has returned, and the proposals that they are of."""
        logits = next((tensor for tensor in tensors_in(output) if tensor.dim() == 4), None)
        if logits is None or logits.shape[2] != logits.shape[3]:
            shape = None if logits is None else tuple(logits.shape)
            raise UserError(
                f"The layer {layer} draws no square masks (its output has the shape {shape}); name the one that does "
                f"in {_LOGITS}."
            )
        part = self.parts[-1]
        part.drawn, part.proposals = [logits], self._proposals_of(part, len(logits), layer)
        classes = max((int(image.gt_classes.max()) for image in part.proposals if len(image)), default=0)
        if logits.shape[1] != 1 and logits.shape[1] <= classes:
            raise UserError(
                f"The layer {layer} draws masks of {logits.shape[1]} classes, and there is an object of class "
                f"{classes}; name the layer that draws the logits in {_LOGITS}."
            )

    def _proposals_of(self, part: _Part, count: int, layer: str) -> list[Instances]:
        lists = [proposals for proposals in (part.given, part.sampled) if proposals is not None]
        for proposals in lists:
            for images in (proposals, self._foreground(proposals)):
                if _count(images) == count and all(image.has("proposal_boxes") for image in images):
                    return images
        counts = dict.fromkeys(str(_count(self._foreground(proposals))) for proposals in lists)
        found = " or ".join(counts) or "no"
        raise UserError(
            f"The layer {layer} has drawn {count} masks of {found} foreground proposals, so which belongs to which is "
            f"unknown; name the layer that draws the logits of the final masks in {_LOGITS}."
        )

    def _foreground(self, proposals: list[Instances]) -> list[Instances]:
        if not all(image.has("gt_classes") for image in proposals):
            return proposals
        return select_foreground_proposals(proposals, self.heads.num_classes)[0]

    def nothing_drawn(self, layer: str, loss: torch.Tensor) -> None:
        """Samples of no object, for heads that draw nothing then."""
        part = self.parts[-1]
        known = part.given if part.given is not None else self._foreground(part.sampled or [])
        if not known or _count(known):
            raise UserError(
                f"The layer {layer} has drawn nothing in a forward pass with objects; name the layer that draws the "
                f"logits in {_LOGITS}."
            )
        part.drawn, part.proposals = [loss.new_zeros(0, 1, _NO_SIDE, _NO_SIDE, requires_grad=True)], known

    def _keep_crops(self, stack: ExitStack, masks: Any) -> None:
        # rasterising polygons takes time, and the head's own loss does it as well
        def see(arguments: tuple[Any, ...], result: Any) -> None:
            boxes, side = arguments[:2]
            self.crops[id(masks), int(side)] = boxes, result

        on_call(stack, masks, "crop_and_resize", see)

    def crop(self, image: Instances, side: int) -> torch.Tensor:
        """(R, side, side): the truth in the boxes of one image's proposals."""
        if len(image) and not hasattr(image.get_fields().get("gt_masks"), "crop_and_resize"):
            raise UserError(
                "MODEL.GAN.ENABLED needs annotated masks to learn from, and the objects of this training set have "
                f"only {', '.join(name for name in image.get_fields() if name.startswith('gt_'))}; set "
                "MODEL.GAN.MASK.ENABLED to False."
            )
        boxes, crops = self.crops.get((id(image.get_fields().get("gt_masks")), side), (None, None))
        if crops is not None and boxes is image.proposal_boxes.tensor:
            return crops.to(boxes.device)
        return crop_truth(image, side)


def _count(images: list[Instances]) -> int:
    return sum(len(image) for image in images)


def _draws_points(heads: Any) -> bool:
    head = _mask_head(heads)
    if isinstance(head, ImplicitPointRendMaskHead):
        raise UserError(
            "MODEL.GAN.ENABLED needs masks on a grid, which ImplicitPointRendMaskHead never draws; set it to False, or "
            "MODEL.ROI_MASK_HEAD.NAME to PointRendMaskHead."
        )
    return isinstance(head, PointRendMaskHead)


def _mask_head(heads: Any) -> Any:
    head = getattr(heads, "mask_head", None)
    return head[-1] if isinstance(head, nn.ModuleList) and len(head) else head


def _box_predictor(heads: Any) -> Any:
    """The last stage's, whose boxes inference uses."""
    predictor = getattr(heads, "box_predictor", None)
    return predictor[-1] if isinstance(predictor, nn.ModuleList) and len(predictor) else predictor


def _logits_layer(model: Any, name: str) -> str:
    """The full name of the layer that draws the logits: the one that is asked for, or the one that looks like it."""
    modules = dict(model.named_modules())
    if name:
        for full in (f"roi_heads.{name}", name):
            if full in modules:
                return full
        raise UserError(f"{_LOGITS} is {name!r}, and the model has no such layer; name one below roi_heads.")
    heads = model.roi_heads
    head = _mask_head(heads)
    if head is None:
        raise UserError(
            f"MODEL.GAN.ENABLED needs a mask head to observe, and {type(heads).__name__} has none: set MODEL.MASK_ON "
            f"to True, or name the layer that draws the logits in {_LOGITS}."
        )
    prefix = next(full for full, module in modules.items() if module is head)
    inside = {full: module for full, module in modules.items() if full.startswith(f"{prefix}.")}
    called = [full for full in inside if full.rpartition(".")[2] in _NAMES]
    counts = (getattr(heads, "num_classes", 1), 1)
    drawing = [full for full, module in inside.items() if getattr(module, "out_channels", None) in counts]
    if not called and not drawing:
        raise UserError(
            f"No layer of {type(head).__name__} looks like the one that draws the logits of the masks; name it in "
            f"{_LOGITS}, such as mask_head.predictor."
        )
    return min(called, key=lambda full: full.count(".")) if called else drawing[-1]


def _level_names(heads: Any) -> list[str]:
    for attribute in ("mask_in_features", "box_in_features", "in_features"):
        if names := getattr(heads, attribute, None):
            return list(names)
    raise UserError(
        f"A discriminator looks at RoI features, and {type(heads).__name__} names no levels for them; set "
        "MODEL.GAN.MASK.DISCRIMINATOR to PixelMaskDiscriminator."
    )


def box_samples(
    predictor: Any,
    predictions: tuple[torch.Tensor, torch.Tensor],
    proposals: list[Instances],
    loss: torch.Tensor | None = None,
    features: tuple[torch.Tensor, ...] = (),
) -> BoxSamples:
    """The boxes of the positive proposals, decoded and clipped.

    Args:
        predictor: decodes deltas; a FastRCNNOutputLayers, or like one.
        predictions: (P, K + 1) scores and (P, 4K), or (P, 4), deltas of all proposals.
        proposals: of each image, with their truth.
        loss, features: see `BoxSamples`.
    """
    deltas = predictions[1]
    classes = torch.cat([image.gt_classes for image in proposals])
    count = getattr(predictor, "num_classes", predictions[0].shape[1] - 1)
    (positive,) = torch.nonzero((classes >= 0) & (classes < count), as_tuple=True)
    lengths = torch.tensor([len(image) for image in proposals], device=deltas.device)
    images = torch.arange(len(proposals), device=deltas.device).repeat_interleave(lengths)[positive]
    classes = classes[positive]

    # (P, K, 4) or, class-agnostic, (P, 1, 4)
    own = deltas[positive].view(len(positive), deltas.shape[1] // 4, 4)
    own = own[torch.arange(len(positive), device=deltas.device), classes if own.shape[1] > 1 else classes * 0]
    from_boxes = torch.cat([image.proposal_boxes.tensor for image in proposals])[positive]
    decoded = predictor.box2box_transform.apply_deltas(own, from_boxes)
    # (P, 4) width, height, width, height: no box reaches out of its image
    limits = torch.tensor([[*image.image_size[::-1]] * 2 for image in proposals], device=deltas.device)[images]
    predicted = torch.minimum(decoded.clamp(min=0), limits.to(decoded.dtype))
    truth = _truth(proposals, from_boxes)[positive]
    return BoxSamples(predicted, truth, images, classes, features, loss, deltas)


def _truth(proposals: list[Instances], like: torch.Tensor) -> torch.Tensor:
    """(P, 4) annotated boxes of all proposals; an image without annotations has none, and nothing positive either."""
    boxes = [image.gt_boxes.tensor if image.has("gt_boxes") else like.new_zeros(len(image), 4) for image in proposals]
    return torch.cat(boxes)
