"""Where samples come from: a source watches a model that others wrote while it trains, and replaces nothing of it.

A source is registered in `SAMPLE_SOURCE_REGISTRY`; the first one that fits a model is asked. Its hooks last for one
forward pass, so that between two of them the model is exactly its authors'.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from fvcore.common.registry import Registry
from torch import nn

from gan_plugin.errors import UserError

from .mask_sampling import MaskSampler
from .samples import Samples

SAMPLE_SOURCE_REGISTRY = Registry("SAMPLE_SOURCE")
SAMPLE_SOURCE_REGISTRY.__doc__ = "Subclasses of `SampleSource`, asked in the order of their registration."

Found = dict[str, Samples]


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
