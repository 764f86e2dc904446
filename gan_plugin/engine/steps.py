"""One iteration of training: of both players with one optimizer, or one after the other with two."""

import time
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.utils.events import get_event_storage
from torch import nn

from gan_plugin.modeling.meta_arch import discriminator_parameters, record_totals

from .guard import check_finite

# Norms are for the eye: computed as often as Detectron2's writers write.
GRADIENT_NORM_PERIOD = 20


class _Observed(SimpleTrainer):
    """A Detectron2 step that checks every loss before the weights see it, and records gradient norms."""

    def _write_metrics(self, loss_dict: Any, data_time: float, prefix: str = "", iter: int | None = None) -> None:
        check_finite(loss_dict, self.iter)
        super()._write_metrics(loss_dict, data_time, prefix, iter)

    def after_backward(self) -> None:
        super().after_backward()
        rest_idle_discriminator(self.model)
        if (self.iter + 1) % GRADIENT_NORM_PERIOD == 0:
            record_gradient_norms(self.model, self._gradient_scale())

    def _gradient_scale(self) -> float:
        return 1.0


class JointStep(_Observed):
    """Detectron2's own step on the sum of both players' losses, whose gradients the model has routed."""


class JointAMPStep(_Observed, AMPTrainer):
    """The same in mixed precision."""

    def _gradient_scale(self) -> float:
        return self.grad_scaler.get_scale()


class AlternatingStep(_Observed):
    """Both players in turn, from one forward pass (thesis 5.6.2, algorithm 1).

    Order "thesis": the discriminator's loss on real and on detached fake masks, its step; then the generator's losses,
    the adversarial one against the updated discriminator, and its step. Order "paper": the losses of both against the
    same discriminator, then both steps.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        disc_optimizer: torch.optim.Optimizer,
        order: str = "thesis",
    ) -> None:
        """
        Args:
            model: an AdversarialRCNN with an adversary.
            data_loader: batches of model inputs.
            optimizer: holds the generator's parameters only.
            disc_optimizer: holds the discriminator's parameters only.
            order: "thesis" or "paper".
        """
        super().__init__(model, data_loader, optimizer)
        self.disc_optimizer = disc_optimizer
        self.order = order

    def run_step(self) -> None:
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        generator, samples = self.model.generator_forward(data)
        discriminator = self.model.discriminator_losses(samples)
        check_finite({**generator, **discriminator}, self.iter)
        if self.order == "paper":
            generator.update(self.model.adversarial_losses(samples))
        self._backward(discriminator, self.disc_optimizer)
        if self.order == "thesis":
            self._step_discriminator()
            generator.update(self.model.adversarial_losses(samples))
        check_finite(generator, self.iter)
        self._backward(generator, self.optimizer)
        if self.order == "paper":
            self._step_discriminator()

        self.after_backward()
        record_totals(generator, discriminator)
        self._write_metrics({**generator, **discriminator}, data_time)
        self.optimizer.step()

    def _backward(self, losses: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()

    def _step_discriminator(self) -> None:
        rest_idle_discriminator(self.model)
        self.disc_optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "disc_optimizer": self.disc_optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.disc_optimizer.load_state_dict(state_dict["disc_optimizer"])


def rest_idle_discriminator(model: nn.Module) -> None:
    """Take the discriminator's gradient away where it is all zeros, so that no optimizer moves it.

    That is so before START_ITER and in an iteration without masks. Momentum and weight decay would act on a zero
    gradient, and Adam would count a step.
    """
    parameters = discriminator_parameters(model)
    if not any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in parameters):
        for parameter in parameters:
            parameter.grad = None


def record_gradient_norms(model: nn.Module, scale: float = 1.0) -> None:
    """Put the Euclidean norm of either player's gradient into the event storage, before any clipping.

    Args:
        model: after the backward pass.
        scale: what mixed precision has multiplied the losses by.
    """
    disc = discriminator_parameters(model)
    of_disc = {id(parameter) for parameter in disc}
    players = {"generator": [p for p in model.parameters() if id(p) not in of_disc], "discriminator": disc}
    for player, parameters in players.items():
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            norm = torch.nn.utils.get_total_norm(gradients)
            get_event_storage().put_scalar(f"grad_norm/{player}", norm.item() / scale, smoothing_hint=False)
