"""One iteration of training: of both players with one optimizer, or one after the other with two."""

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gan_plugin import compat
from gan_plugin.layers.layout import lay_out_states
from gan_plugin.modeling.meta_arch import (
    discriminator_parameters,
    discriminators_of,
    generator_parameters,
    record_totals,
    say_step,
)

from .check_config import check_finite, diverged
from .distributed import average_gradients
from .feature_shares import backbone_of, features_seen, record_shares

# Norms are for the eye: computed as often as Detectron2's writers write.
GRADIENT_NORM_PERIOD = 20
# A loss scale halves with every overflow; gradients that have not fitted in so far never will.
_LEAST_SCALE = 2.0**-10

Losses = dict[str, torch.Tensor]


class _Gradients:
    """The gradients of one player, in the form in which a GradScaler takes an optimizer.

    It would let an optimizer step once an update, or not at all where one gradient has overflowed; but players may
    share an optimizer, and a discriminator may step several times in an iteration.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.param_groups = [{"params": parameters}]
        self.are_finite = False

    def step(self) -> None:
        """What the scaler calls once it has divided the gradients by the scale, if all of them are finite."""
        self.are_finite = True


class ObservedStep(SimpleTrainer):
    """A Detectron2 step that checks every loss before the weights see it, and records gradient norms.

    Mixed precision: the scale of the losses stays the same within an iteration. After a player's last backward pass
    `_unscale` divides its gradients by it, so that norms, clipping, hooks and optimizers see them as without mixed
    precision; `_update_scale` ends the iteration.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        *,
        accumulate: int = 1,
        amp: bool = False,
        grad_scaler: Any = None,
        shares_period: int = 0,
    ) -> None:
        """
        Args:
            model: on its device.
            data_loader: batches of model inputs.
            optimizer: of the weights that learn.
            accumulate: batches of a step.
            amp: whether to compute in mixed precision.
            grad_scaler: a GradScaler; by default one that scales in float16 only.
            shares_period: iterations between `record_shares`; 0 for never.

        Raises:
            UserError: shares are wanted of a model without a backbone.
        """
        super().__init__(model, data_loader, optimizer)
        # whoever else calls it in training mode wants the generator's losses
        say_step(model, within=False)
        self.accumulate = accumulate
        self.shares_period = shares_period
        if shares_period:
            backbone_of(model)
        device = next(model.parameters()).device.type
        self._autocast = _autocast(device) if amp else nullcontext
        # Without mixed precision, or in bfloat16, which has the range of float32, it hands everything through.
        self.grad_scaler = grad_scaler or compat.grad_scaler(device, enabled=amp and device == "cuda")
        # kept until the update, since the scaler tells them apart by their ids
        self._unscaled: list[Any] = []

    def _next_batch(self) -> tuple[Any, float]:
        """A batch, and the seconds that it took."""
        start = time.perf_counter()
        return next(self._data_loader_iter), time.perf_counter() - start

    def _features(self) -> AbstractContextManager[list[torch.Tensor]]:
        """What `record_shares` needs of the forward pass in the block, in iterations in which it is due."""
        due = self.shares_period > 0 and (self.iter + 1) % self.shares_period == 0
        return features_seen(self.model, wanted=due)

    def _backward(
        self,
        losses: Losses,
        gain: float = 1.0,
        learning: list[nn.Parameter] | None = None,
        keep_graph: bool = False,
    ) -> None:
        """Add the gradients of the sum of `losses`: of all leaves, or of `learning` only."""
        total = torch.stack([loss.float() for loss in losses.values()]).sum() * (gain / self.accumulate)
        self.grad_scaler.scale(total).backward(inputs=learning, retain_graph=keep_graph)

    def _unscale(self, player: str, parameters: Sequence[nn.Parameter]) -> None:
        """Divide the gradients of one player by the loss scale; it loses them, and so rests, if they have overflowed.

        Args:
            player: such as "generator", for the sentence of the error.
            parameters: of the player, which has done all its backward passes.

        Raises:
            NonFiniteLossError: they are not finite with hardly any scale either.
        """
        # each once, also where networks share a weight
        learning = list(dict.fromkeys(parameter for parameter in parameters if parameter.grad is not None))
        if not learning:
            return
        gradients: Any = _Gradients(learning)
        self.grad_scaler.step(gradients)
        self._unscaled.append(gradients)
        if gradients.are_finite:
            return
        if self.grad_scaler.get_scale() < _LEAST_SCALE:
            raise diverged(self.iter, f"the gradients of the {player} are not finite at any loss scale")
        for parameter in learning:
            parameter.grad = None

    def _update_scale(self) -> None:
        """Let the scale shrink if gradients of this iteration have overflowed, or else grow now and then."""
        # The scaler cannot be asked after an iteration without any gradient.
        if self._unscaled:
            self.grad_scaler.update()
            self._unscaled.clear()
        if self.grad_scaler.is_enabled() and (self.iter + 1) % GRADIENT_NORM_PERIOD == 0:
            get_event_storage().put_scalar("grad_scale", self.grad_scaler.get_scale(), smoothing_hint=False)

    def _unscale_discriminators(self) -> None:
        rest_idle_discriminator(self.model)
        for parameters in discriminators_of(self.model):
            self._unscale("discriminator", parameters)
        self._record_norm("discriminator", discriminator_parameters(self.model))

    def _record_norm(self, player: str, parameters: Iterable[nn.Parameter]) -> None:
        if (self.iter + 1) % GRADIENT_NORM_PERIOD == 0:
            record_gradient_norm(player, parameters)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All that step."""
        return [self.optimizer]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        lay_out_states(self.optimizer)
        # An empty state is that of a run without mixed precision.
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


class JointStep(ObservedStep):
    """One optimizer's step on the sum of both players' losses, whose gradients the model has routed."""

    def run_step(self) -> None:
        self.optimizer.zero_grad()
        records, seconds = [], 0.0
        for number in range(self.accumulate):
            data, waited = self._next_batch()
            seconds += waited
            is_last = number == self.accumulate - 1
            with self._apart(is_last):
                with self._autocast(), self._features() as features:
                    losses = self._losses_of(data)
                check_finite(losses, self.iter)
                record_shares(losses, features)
                self._backward(losses)
            records.append(losses)
        generator = generator_parameters(self.model)
        self._unscale("generator", generator)
        self._record_norm("generator", generator)
        self._unscale_discriminators()
        self.after_backward()
        self._write_metrics(mean_losses(records), seconds)
        self.optimizer.step()
        self._update_scale()

    def _losses_of(self, data: Any) -> Losses:
        say_step(self.model, within=True)
        try:
            return self.model(data)
        finally:
            say_step(self.model, within=False)

    def _apart(self, is_last: bool) -> AbstractContextManager:
        # Gradients travel between processes once, with the last batch.
        several = isinstance(self.model, DistributedDataParallel) and not is_last
        return self.model.no_sync() if several else nullcontext()


class AlternatingStep(ObservedStep):
    """Both players in turn, from one forward pass of the generator (thesis 5.6.2, algorithm 1).

    Order "thesis": the discriminator's loss on real and on detached fake samples, its step; then the generator's
    losses, the adversarial one against the updated discriminator, and its step. Order "paper": the losses of both
    against the same discriminator, then both steps. With several discriminator steps all of them see the same samples,
    with labels, noise and augmentation drawn anew.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        disc_optimizer: torch.optim.Optimizer,
        order: str = "thesis",
        disc_steps: int = 1,
        **options: Any,
    ) -> None:
        """
        Args:
            model: an AdversarialModel with an adversary, not wrapped for distributed training.
            data_loader: batches of model inputs.
            optimizer: holds the generator's parameters only.
            disc_optimizer: holds the discriminator's parameters only.
            order: "thesis" or "paper".
            disc_steps: the discriminator's steps per step of the generator.
            options: `accumulate`, batches per step, above 1 in the order "paper" with one discriminator step only,
                since the other order would have to keep all batches' graphs; `amp`, for mixed precision;
                `shares_period`.
        """
        super().__init__(model, data_loader, optimizer, **options)
        self.disc_optimizer = disc_optimizer
        self.order = order
        self.disc_steps = disc_steps

    def run_step(self) -> None:
        self.optimizer.zero_grad()
        self.disc_optimizer.zero_grad()
        generators, discriminators, seconds = [], [], 0.0
        for _ in range(self.accumulate):
            data, waited = self._next_batch()
            seconds += waited
            generator, discriminator = self._thesis(data) if self.order == "thesis" else self._paper(data)
            generators.append(generator)
            discriminators.append(discriminator)
        learning = generator_parameters(self.model)
        average_gradients(learning)
        self._unscale("generator", learning)
        self._record_norm("generator", learning)
        if self.order == "paper":
            self._step_discriminator()
        self.after_backward()
        generator, discriminator = mean_losses(generators), mean_losses(discriminators)
        record_totals(generator, discriminator)
        self._write_metrics({**generator, **discriminator}, seconds)
        self.optimizer.step()
        self._update_scale()

    def _thesis(self, data: Any) -> tuple[Losses, Losses]:
        with self._autocast(), self._features() as features:
            generator, pairs = self.model.generator_forward(data)
        check_finite(generator, self.iter)
        discriminator = self._train_discriminator(pairs)
        self._step_discriminator()
        with self._autocast():
            generator.update(self.model.adversarial_losses(pairs))
        check_finite(generator, self.iter)
        record_shares(generator, features)
        self._backward(generator)
        return generator, discriminator

    def _paper(self, data: Any) -> tuple[Losses, Losses]:
        with self._autocast(), self._features() as features:
            generator, pairs = self.model.generator_forward(data)
            asked = self.model.asked_once(pairs)
            generator.update(self.model.adversarial_losses(asked))
        check_finite(generator, self.iter)
        record_shares(generator, features)
        self._backward(generator)
        return generator, self._train_discriminator(pairs, asked)

    def _train_discriminator(self, pairs: Any, asked: Any = None) -> Losses:
        """All of the discriminator's backward passes, and all its steps but the last.

        `asked` are the pairs with the answers of the weights before the first step.
        """
        for number in range(self.disc_steps):
            if number:
                self._step_discriminator()
                self.disc_optimizer.zero_grad()
            with self._autocast():
                losses = self.model.discriminator_losses(pairs if number else asked or pairs)
            check_finite(losses, self.iter)
            self._backward(losses)
        return losses

    def _step_discriminator(self) -> None:
        average_gradients(discriminator_parameters(self.model))
        self._unscale_discriminators()
        self.disc_optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "disc_optimizer": self.disc_optimizer.state_dict()}

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.optimizer, self.disc_optimizer]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.disc_optimizer.load_state_dict(state_dict["disc_optimizer"])
        lay_out_states(self.disc_optimizer)


def mean_losses(records: list[Losses]) -> Losses:
    """The mean of every loss over the batches of one step, without gradient."""
    return {name: torch.stack([record[name].detach().float() for record in records]).mean() for name in records[0]}


def rest_idle_discriminator(model: nn.Module) -> None:
    """Take the gradient of each discriminator away where it is all zeros, so that no optimizer moves that one.

    That is so before START_ITER, in an iteration without samples and behind a closed gate. Momentum and weight decay
    would act on a zero gradient, and Adam would count a step.
    """
    for parameters in discriminators_of(model):
        if not any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in parameters):
            for parameter in parameters:
                parameter.grad = None


def record_gradient_norm(player: str, parameters: Iterable[nn.Parameter]) -> None:
    """Put the Euclidean norm of all gradients of `parameters` into the event storage, before any clipping."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        norm = compat.total_norm(gradients)
        get_event_storage().put_scalar(f"grad_norm/{player}", norm.item(), smoothing_hint=False)


def mixed_precision(asked: bool, model: nn.Module) -> bool:
    """Whether a run that asks for it computes in mixed precision: not on a CPU that it would only slow down."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    if not asked or not on_cpu or torch.backends.cpu.get_cpu_capability() != "AVX2":
        return asked
    # measured: EfficientNet-Lite0, forward and backward, takes 3.4 times as long in bfloat16
    logging.getLogger(__name__).warning(
        "Mixed precision is left off: this CPU has no bfloat16 instructions, and would be several times slower with it."
    )
    return False


def _autocast(device: str) -> Any:
    """float16 on a GPU, as Detectron2's AMPTrainer; bfloat16 on a CPU, which has no use for float16."""
    dtype = torch.float16 if device == "cuda" else torch.bfloat16
    return lambda: torch.autocast(device, dtype=dtype)
