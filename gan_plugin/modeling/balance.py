"""How hard an adversary may pull beside the loss that it complements, and how far back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from gan_plugin.errors import UserError
from gan_plugin.processes import mean_over_processes

from .samples import Samples

# keeps the gradients in half precision from vanishing on their way, as a GradScaler would
_SCALE = 2.0**10
# of the running mean of the head's own gradient
_MEMORY = 0.9


@dataclass(frozen=True)
class GradientShare:
    """Holds an adversary's terms to a share of the head's own loss, by the norms of their gradients at what was drawn.

    All terms of a player get one factor, so that the ratio between them stays. A rule of this kind, with both norms at
    the last layer's weights and a share of 1, is VQGAN's (Esser et al. 2021, arXiv 2012.09841, eq 7). At what was
    drawn the terms' gradient is in hand once it has passed the discriminator; it is scaled there and goes on into the
    head, so that the discriminator is differentiated once, and no layer of the head has to be known.

    Attributes:
        share: |gradient of the terms' sum| / |gradient of the head's own loss|.
        max_factor: the greatest factor; reached only where the terms have next to no gradient.
    """

    share: float = 0.1
    max_factor: float = 1e4

    def __call__(
        self,
        terms: dict[str, torch.Tensor],
        samples: Samples,
        ramp: float = 1.0,
        fake: tuple[torch.Tensor, torch.Tensor] | None = None,
        usual: torch.Tensor | None = None,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """
        Args:
            terms: weighted scalar losses of one player, whose graphs are used up.
            samples: what they judge, with the head's own loss.
            ramp: multiplies the share, in [0, 1].
            fake: what a discriminator sees of the samples, and the leaf that the terms know in its place; so its graph
                lasts for another use.
            usual: scalar, the running mean of the norm of the head's own gradient, which is brought up to date here; it
                takes that norm's place in a batch of which the head learns nothing by itself.

        Returns:
            The terms, scaled in value and gradient, and their common factor without the ramp, which is a scalar in
            [0, max_factor] and the same in every process.

        Raises:
            UserError: the head has handed out no loss to compare with.
        """
        if samples.loss is None or samples.output is None:
            raise UserError(
                "MODEL.GAN.BALANCE.SHARE needs samples that bring the head's own loss and the output it is taken of, "
                "and these have none; let their source add both, or set the key to 0 for absolute weights."
            )
        own = _own_pull(samples.loss, samples.output)
        pulls = {name: _pull(term, samples, fake) for name, term in terms.items()}
        pull = torch.stack(list(pulls.values())).sum(0)
        # Means of squares: several processes then get the factor of one with all of their samples.
        squares = mean_over_processes(torch.stack([own.square().sum(), pull.square().sum()]))
        own_norm, norm = squares.sqrt()
        if usual is not None:
            own_norm = _or_usual(own_norm, usual)
        factor = (self.share * own_norm / norm).clamp(max=self.max_factor)
        # No gradient needs no factor; where one has overflowed in half precision, nothing should pull in this step.
        factor = torch.where((norm > 0) & squares.isfinite().all(), factor, torch.zeros_like(factor))
        scale = factor * ramp
        losses = {}
        for name, term in terms.items():
            # a value that is not finite stays what it is, for whoever stops the training because of it
            value = torch.where(term.isfinite(), term * scale, term).detach()
            pull = pulls[name].nan_to_num(0.0, 0.0, 0.0) * scale
            losses[name] = _WithGradients.apply(value, [pull], samples.drawn)
        return losses, factor


def kept_within(
    losses: Mapping[str, torch.Tensor], samples: Samples, parameters: Sequence[torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    """The same losses, which pull at `parameters` alone: what lies before them is a constant.

    That is what a second pass of the head on detached features would give. Here the head goes backward once more for
    each loss, to its parameters only, before the step does; so one backward pass of the sum of all losses suffices.

    Args:
        losses: scalars of the samples alone, whose graphs are used up.
        samples: what they judge; their own graph stays whole.
        parameters: of the head that has drawn them.
    """
    confined = {}
    for name, loss in losses.items():
        (pull,) = torch.autograd.grad(loss * _SCALE, samples.judged, allow_unused=True)
        found: Sequence[torch.Tensor | None] = ()
        if pull is not None and parameters:
            found = torch.autograd.grad(samples.judged, parameters, pull, retain_graph=True, allow_unused=True)
        hit = [(each, gradient) for each, gradient in zip(parameters, found, strict=False) if gradient is not None]
        gradients = [_unscaled(gradient, each) for each, gradient in hit]
        confined[name] = _WithGradients.apply(loss.detach(), gradients, *(each for each, _ in hit))
    return confined


def _or_usual(norm: torch.Tensor, usual: torch.Tensor) -> torch.Tensor:
    if not (norm > 0 and norm.isfinite()):
        return usual.clone()
    usual.copy_(torch.where(usual > 0, usual.lerp(norm, 1 - _MEMORY), norm))
    return norm


def _own_pull(loss: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """The gradient of a head's loss at its output, in single precision; its graph stays whole."""
    (gradient,) = torch.autograd.grad(loss * _SCALE, output, retain_graph=True, allow_unused=True)
    return _unscaled(gradient, output)


def _pull(term: torch.Tensor, samples: Samples, fake: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
    """The gradient of `term` at what was drawn, in single precision: its own, and what comes by the leaf of `fake`."""
    judged, drawn = samples.judged, samples.drawn
    leaves = [judged] if fake is None else [judged, fake[1]]
    direct, *seen = torch.autograd.grad(term * _SCALE, leaves, allow_unused=True)
    pull = _unscaled(direct, judged)
    if fake is not None and seen[0] is not None and seen[0].numel():
        (rest,) = torch.autograd.grad(fake[0], judged, seen[0], retain_graph=True, allow_unused=True)
        pull = pull + _unscaled(rest, judged)
    if judged is drawn:
        return pull
    scaled = (pull * _SCALE).to(judged.dtype)
    (gradient,) = torch.autograd.grad(judged, drawn, scaled, retain_graph=True, allow_unused=True)
    return _unscaled(gradient, drawn)


def _unscaled(gradient: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    return like.new_zeros(like.shape, dtype=torch.float32) if gradient is None else gradient.float() / _SCALE


class _WithGradients(torch.autograd.Function):
    """A value whose gradients at some tensors have been found already."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, gradients: list[torch.Tensor], *at: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [tensor.dtype for tensor in at]
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # A GradScaler's scale is applied before half precision could lose the product.
        pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return None, None, *((gradient * scale).to(dtype) for gradient, dtype in pairs)
