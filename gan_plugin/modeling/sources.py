"""Where samples come from: a source watches a model that others wrote while it trains, and replaces nothing of it.

A source is registered in `SAMPLE_SOURCE_REGISTRY`; the first one that fits a model is asked. Its hooks last for one
forward pass, so that between two of them the model is exactly its authors'. Here stands the one of models whose
criterion matches queries to objects; `roi_source` has the one of RoI heads.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from detectron2.layers import ROIAlign, ShapeSpec
from fvcore.common.registry import Registry
from torch import nn

from gan_plugin.errors import UserError

from .samples import MaskSampler, MaskSamples, Samples, mask_iou

SAMPLE_SOURCE_REGISTRY = Registry("SAMPLE_SOURCE")
SAMPLE_SOURCE_REGISTRY.__doc__ = "Subclasses of `SampleSource`, asked in the order of their registration."

Found = dict[str, Samples]
# the criterion's method that is given the matched masks: (outputs, targets, indices, number of masks)
_METHOD = "loss_masks"
# pixels of the image to one of the mask features, where nothing says otherwise
_STRIDE = 4


class SampleSource(ABC):
    """What is known of a kind of model: where in it masks and boxes are drawn, and what truth they are matched with.

    Attributes:
        sampler: how samples are made of what is seen.
        players: which samples are wanted, "mask" and "box".
    """

    def __init__(self, model: nn.Module, sampler: MaskSampler, players: Collection[str]) -> None:
        """
        Args:
            model: on whose parts the source will look; it is not kept, so that the model can be copied.
            sampler, players: see the class.

        Raises:
            UserError: the model has no part that draws what a player wants to see.
        """
        self.sampler = sampler
        self.players = frozenset(players)

    def __str__(self) -> str:
        """What is observed, for the log."""
        return type(self).__name__

    @classmethod
    @abstractmethod
    def fits(cls, model: nn.Module) -> bool:
        """Whether `model` is of this kind."""

    @abstractmethod
    def levels(self, model: nn.Module) -> list[ShapeSpec]:
        """Channels and stride of each level of the features that samples can bring."""

    def mask_head(self, model: nn.Module) -> nn.Module:
        """The part of the model that only masks have, from pooled features to logits.

        Raises:
            UserError: there is none.
        """
        raise UserError(
            f"MODEL.GAN.MASK.REACH head is for models with RoI heads: {theirs(model).__name__} draws masks with layers "
            "that its other predictions share; set it to all."
        )

    @abstractmethod
    def watch(self, model: nn.Module, stack: ExitStack, features: bool) -> Callable[[torch.Tensor], Found]:
        """Watch one forward pass in training mode.

        Args:
            model: about to run.
            stack: closed after the forward pass; takes every hook along.
            features: whether samples must bring the features below them.

        Returns:
            What makes samples of all that was seen, by player, given the sum of the model's own losses; called once,
            after the pass. It raises a UserError if something has not been seen, or does not fit together.
        """


def find_source(model: nn.Module, sampler: MaskSampler, players: Collection[str]) -> SampleSource:
    """The registered source that fits `model`.

    Raises:
        UserError: there is none, or the model lacks a part that it needs.
    """
    for _, kind in SAMPLE_SOURCE_REGISTRY:
        if kind.fits(model):
            return kind(model, sampler, players)
    known = ", ".join(name for name, _ in SAMPLE_SOURCE_REGISTRY)
    raise UserError(
        f"MODEL.GAN.ENABLED is True, but no source of samples ({known}) knows where {theirs(model).__name__} draws its "
        "masks; set it to False, or register a source of your own."
    )


def theirs(model: nn.Module) -> type:
    """The class of a model as its authors wrote it."""
    return next(kind for kind in type(model).__mro__ if not kind.__module__.startswith(__package__))


@contextmanager
def watching(source: SampleSource, model: nn.Module, features: bool) -> Iterator[Callable[[torch.Tensor], Found]]:
    """The block in which the forward pass runs; see `SampleSource.watch` for the rest."""
    with ExitStack() as stack:
        yield source.watch(model, stack, features)


@contextmanager
def watching_pictures(model: Any, wanted: bool) -> Iterator[list[torch.Tensor]]:
    """The block in which the forward pass runs; then the list holds the images that the backbone has been given,
    (N, 3, H, W) in RGB with values in [0, 1], or nothing unless `wanted`.

    Raises:
        UserError: the model does not say how it normalises pictures, or has no backbone.
    """
    pictures: list[torch.Tensor] = []
    with ExitStack() as stack:
        if wanted:
            if not all(hasattr(model, part) for part in ("backbone", "pixel_mean", "pixel_std")):
                raise UserError(
                    f"Pictures are to be looked at beside the masks, and {theirs(model).__name__} has no backbone, "
                    "pixel_mean and pixel_std that say what they are; set MODEL.GAN.MASK.DISCRIMINATOR to "
                    "PixelMaskDiscriminator and MODEL.GAN.UNPAIRED.PAIRWISE_WEIGHT to 0."
                )
            is_rgb = getattr(model, "input_format", None) == "RGB"

            def see(arguments: tuple[Any, ...]) -> None:
                pixels = (arguments[0].detach().float() * model.pixel_std + model.pixel_mean) / 255
                pictures.append(pixels.clamp(0, 1) if is_rgb else pixels.clamp(0, 1).flip(1))

            on_input(stack, model.backbone, see)
        yield pictures


def on_input(stack: ExitStack, module: nn.Module, see: Callable[[tuple[Any, ...]], None]) -> None:
    """Let `see` look at all arguments of a module's calls, those by position before those by name."""

    def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        see((*arguments, *named.values()))

    stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)


def on_output(stack: ExitStack, module: nn.Module, see: Callable[[Any], None]) -> None:
    """Let `see` look at what a module returns."""

    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        see(output)

    stack.callback(module.register_forward_hook(hook).remove)


def on_call(stack: ExitStack, owner: Any, method: str, see: Callable[[tuple[Any, ...], Any], None]) -> None:
    """Let `see` look at the arguments (as in `on_input`) and the result of a method of one object."""
    original, own = getattr(owner, method), vars(owner).get(method)

    def call(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        see((*arguments, *named.values()), result)
        return result

    setattr(owner, method, call)
    stack.callback(setattr, owner, method, own) if own is not None else stack.callback(delattr, owner, method)


def tensors_in(output: Any) -> Iterable[torch.Tensor]:
    """All tensors of what a module takes or returns, in the order in which they stand there."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_in(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from tensors_in(value)


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
