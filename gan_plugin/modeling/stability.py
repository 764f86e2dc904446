"""What keeps the game fair: shares of the gradient, rests, soft labels, smooth verdicts, augmentation on demand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.distributed
from detectron2.utils import comm
from torch import nn
from torch.autograd.function import once_differentiable

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError
from gan_plugin.layers.double_backward import input_gradient

from .presenters import DiscriminatorAugment
from .samples import Samples

# keeps the gradients in half precision from vanishing on their way, as a GradScaler would
_SCALE = 2.0**10
# of the running mean of the head's own gradient
_PULL_MEMORY = 0.9
# of the running accuracy of a gate
_ACCURACY_MEMORY = 0.9
Judge = Callable[[torch.Tensor], torch.Tensor]


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """`values` (any shape, floating point) averaged over all processes, without gradient; all must ask.

    With one process these are the values themselves.
    """
    if comm.get_world_size() == 1:
        return values.detach()
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total / comm.get_world_size()


def gradients_at(loss: torch.Tensor, places: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """Of a scalar at each of `places`, in single precision; None where there is none. Its graph stays whole."""
    found = torch.autograd.grad(loss * _SCALE, places, retain_graph=True, allow_unused=True)
    return [None if gradient is None else gradient.float() / _SCALE for gradient in found]


def with_gradients(
    value: torch.Tensor, gradients: Sequence[torch.Tensor | None], at: Sequence[torch.Tensor]
) -> torch.Tensor:
    """A loss whose gradients at some tensors have been found already; None there is a gradient of zero."""
    known = [
        place.new_zeros(()).expand_as(place) if each is None else each
        for each, place in zip(gradients, at, strict=True)
    ]
    return _WithGradients.apply(value.detach(), known, *at)


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
        (found,) = gradients_at(samples.loss, [samples.output])
        own = samples.output.new_zeros(()).float() if found is None else found
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
    usual.copy_(torch.where(usual > 0, usual.lerp(norm, 1 - _PULL_MEMORY), norm))
    return norm


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


class AccuracyGate(nn.Module):
    """Closed while the running accuracy of the discriminator is above a limit.

    The running mean is a buffer, so that a resumed run goes on where it stopped.
    """

    accuracy: torch.Tensor

    def __init__(self, limit: float) -> None:
        """
        Args:
            limit: in (0, 1); the share of right verdicts above which the discriminator does not learn.
        """
        super().__init__()
        self.limit = limit
        self.register_buffer("accuracy", torch.tensor(0.5))

    def update(self, accuracy: float, count: int) -> bool:
        """Take in the share of right verdicts on `count` samples, 0 for none, of this process; True if open."""
        counted = torch.tensor([accuracy * count, count], dtype=torch.float32, device=self.accuracy.device)
        right = mean_over_processes(counted)
        if right[1] > 0:
            self.accuracy.lerp_(right[0] / right[1], 1 - _ACCURACY_MEMORY)
        return bool(self.accuracy <= self.limit)


@dataclass(frozen=True)
class LabelNoise:
    """Draws one label per sample.

    Attributes:
        real, fake: (low, high) of the uniform distribution of either label; equal ends are a hard label.
        flip_prob: probability in [0, 1] that a sample gets a label of the other side's range.

    Raises:
        UserError: a range is not one, or the probability is outside [0, 1].
    """

    real: tuple[float, float] = (0.7, 1.2)
    fake: tuple[float, float] = (0.0, 0.3)
    flip_prob: float = 0.05

    def __post_init__(self) -> None:
        for field in fields(self):
            check_choice(f"MODEL.GAN.LABELS.{field.name.upper()}", getattr(self, field.name))

    def draw(self, logits: torch.Tensor, is_real: bool) -> torch.Tensor:
        """Labels for `logits`, same shape, dtype and device, without gradient; from torch's global random state."""
        own, other = (self.real, self.fake) if is_real else (self.fake, self.real)
        labels = torch.empty_like(logits).uniform_(*own)
        if self.flip_prob > 0:
            flipped = torch.rand_like(labels) < self.flip_prob
            labels = torch.where(flipped, torch.empty_like(labels).uniform_(*other), labels)
        return labels


@dataclass(frozen=True)
class Regularizer:
    """The penalties that are switched on.

    Attributes:
        r1_gamma: gamma of R1, 0 for none.
        gp_weight: weight of the gradient penalty, 0 for none.
        every: iterations between two penalties, each of which then counts so many times (lazy regularisation,
            Karras et al. 2020, arXiv 1912.04958, section 3.1).

    Raises:
        UserError: a value is negative or not finite, or `every` is below 1.
    """

    r1_gamma: float = 0.0
    gp_weight: float = 0.0
    every: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            check_choice(f"MODEL.GAN.REG.{field.name.upper()}", getattr(self, field.name))

    @property
    def is_on(self) -> bool:
        """Whether there is a penalty at all."""
        return self.r1_gamma > 0 or self.gp_weight > 0

    def is_due(self, iteration: int) -> bool:
        """Whether there is a penalty at this iteration."""
        return self.is_on and iteration % self.every == 0

    def __call__(self, judge: Judge, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """The penalty of `judge` at (R, C, S, S) real and fake samples: a scalar, scaled for its rarity."""
        penalty = real.new_zeros((), dtype=torch.float32)
        # Half precision would lose the gradient of a gradient.
        with torch.autocast(real.device.type, enabled=False):
            if self.r1_gamma > 0:
                penalty = penalty + self.r1_gamma / 2 * r1(judge, real.float())
            if self.gp_weight > 0:
                penalty = penalty + self.gp_weight * gradient_penalty(judge, real.float(), fake.float())
        return penalty * self.every


def r1(judge: Judge, real: torch.Tensor) -> torch.Tensor:
    """Mean squared norm of the verdict's gradient at real samples (Mescheder et al. 2018, arXiv 1801.04406, eq 9)."""
    return _slopes(judge, real).square().mean()


def gradient_penalty(judge: Judge, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of the slope between real and fake to 1 (Gulrajani et al. 2017, arXiv 1704.00028, eq 3)."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    return (_slopes(judge, real * share + fake * (1 - share)) - 1).square().mean()


def _slopes(judge: Judge, at: torch.Tensor) -> torch.Tensor:
    """(R, C, S, S) to the norm (R,) of the gradient of each sample's verdict, differentiable."""
    gradient = input_gradient(judge, at)
    # The square root has no derivative at 0, where a discriminator that is still flat begins.
    return (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()


class AdaptiveAugment(nn.Module):
    """Each augmentation of a policy with probability p on each sample; p follows r = E[sign(D(real))].

    Karras et al. 2020, arXiv 2006.06676, section 3: a discriminator that is sure of the training set, r above the
    target, has p raised, else it falls, so fast that p could go from 0 to 1 within `images` real images. The state is
    a part of a checkpoint.
    """

    probability: torch.Tensor

    def __init__(self, policy: str, target: float = 0.6, images: int = 500_000) -> None:
        """
        Args:
            policy: see DiscriminatorAugment.
            target: of r, in (0, 1).
            images: real images in which p could rise from 0 to 1.

        Raises:
            UserError: a policy is unknown, there is none, or a number is out of range.
        """
        super().__init__()
        if not 0 < target < 1 or images < 1:
            raise UserError(
                f"ADA's TARGET is {target} and IMAGES {images}; set them between 0 and 1, and to 1 or more."
            )
        self._augments: Sequence[DiscriminatorAugment] = [
            DiscriminatorAugment(name) for name in policy.split(",") if name.strip()
        ]
        if not self._augments:
            raise UserError("ADA needs augmentations; name some with DIFFAUG, such as translation,cutout.")
        self._target, self._images = target, images
        self.register_buffer("probability", torch.zeros(()))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """(R, C, S, S) to the same shape, differentiable."""
        for augment in self._augments:
            chosen = torch.rand(len(samples), 1, 1, 1, device=samples.device) < self.probability
            samples = torch.where(chosen, augment(samples), samples)
        return samples

    @torch.no_grad()
    def observe(self, verdicts: torch.Tensor) -> None:
        """Move p by the logits of real samples, (R,) or maps (R, H, W), which were augmented like all others."""
        sign = mean_over_processes(verdicts.float().sign().mean())
        step = torch.sign(sign - self._target) * len(verdicts) * comm.get_world_size() / self._images
        self.probability.add_(step).clamp_(0, 1)
