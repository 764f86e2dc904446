"""One iteration of an image GAN: every phase in turn."""

from collections.abc import Iterable
from typing import Any

import torch
from detectron2.utils.events import get_event_storage
from torch import nn

from gan_plugin.modeling.stability import mean_over_processes

from .distributed import average_gradients
from .guard import check_finite
from .image_game import ImageGame, Losses, Phase, only_learning
from .layout import lay_out_states
from .steps import GRADIENT_NORM_PERIOD, ObservedStep, mean_losses, record_gradient_norm

_TOTALS = {"generator": "loss_gen_total", "discriminator": "loss_disc_total"}


class ImageStep(ObservedStep):
    """Plays the phases of an `ImageGame` that are due, each over all batches of the step.

    With gradient accumulation the discriminator thus sees all batches before the generator moves; in a simultaneous
    game nobody moves before all have learnt. Several processes average each player's gradients, as in the alternating
    mode.
    """

    model: ImageGame

    def __init__(
        self, game: ImageGame, phases: list[Phase], data_loader: Iterable[Any], *, accumulate: int, **options: Any
    ) -> None:
        """
        Args:
            game: on its device.
            phases: of the game, each with its own optimizer or sharing one.
            data_loader: endless; yields lists of items for `game.collate`.
            accumulate: batches of a step.
            options: `amp` and `grad_scaler`, as for ObservedStep.

        Raises:
            ValueError: the game is simultaneous, and an optimizer or a parameter belongs to two phases.
        """
        held = [id(p) for phase in phases for group in phase.optimizer.param_groups for p in group["params"]]
        if game.simultaneous and len(set(held)) < len(held):
            raise ValueError(
                "The phases of a simultaneous game share an optimizer or a parameter, so one would clear what the "
                "other has learnt; make them one phase, or let the players move in turn."
            )
        super().__init__(game, data_loader, phases[0].optimizer, accumulate=accumulate, **options)
        self._phases = phases

    def run_step(self) -> None:
        rounds, seconds = [], 0.0
        for _ in range(self.accumulate):
            items, waited = self._next_batch()
            seconds += waited
            with self._autocast():
                rounds.append(self.model.begin(self.model.collate(items), self.iter, self.accumulate == 1))
        due = [phase for phase in self._phases if phase.is_due(self.iter)]
        losses: Losses = {}
        for turn in [due] if self.model.simultaneous else [[phase] for phase in due]:
            losses |= self._play(turn, rounds)
        self._update_scale()
        self._write_metrics(losses, seconds)

    def _play(self, turn: list[Phase], rounds: list[Any]) -> Losses:
        """All of `turn` learn, then all of them move; their losses."""
        losses: Losses = {}
        for phase in turn:
            losses |= self._learn(phase, rounds, keep_graph=phase is not turn[-1])
        for phase in turn:
            self._step(phase)
        return losses

    def _learn(self, phase: Phase, rounds: list[Any], keep_graph: bool) -> Losses:
        """The gradients of one player, and its losses."""
        phase.optimizer.zero_grad()
        # A penalty on a slope makes its images or latents a leaf as well, whose gradient would be one pass for nothing.
        learning = [parameter for parameter in phase.parameters() if parameter.requires_grad]
        records = []
        with only_learning(self.model, phase.networks):
            for shared in rounds:
                with self._autocast():
                    losses = phase.losses(shared)
                check_finite(losses, self.iter)
                self._backward(losses, phase.gain, learning, keep_graph)
                records.append({name: loss.detach() for name, loss in losses.items()})
        means = mean_losses(records)
        total = mean_over_processes(torch.stack(list(means.values())).sum()).item()
        get_event_storage().put_scalar(_TOTALS.get(phase.name, f"loss_{phase.name}_total"), total)
        return means

    def _step(self, phase: Phase) -> None:
        parameters = phase.parameters()
        average_gradients(parameters)
        self._unscale(phase.name, parameters)
        if (self.iter // phase.every + 1) % GRADIENT_NORM_PERIOD == 0:
            record_gradient_norm(phase.name, parameters)
        learning = [parameter for parameter in parameters if parameter.grad is not None]
        if phase.clip_value > 0 and learning:
            nn.utils.clip_grad_value_(learning, phase.clip_value)
        if phase.clip_norm > 0 and learning:
            nn.utils.clip_grad_norm_(learning, phase.clip_norm)
        phase.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        optimizers = {phase.name: phase.optimizer.state_dict() for phase in self._phases}
        return {**super().state_dict(), "optimizers": optimizers}

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [phase.optimizer for phase in self._phases]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for phase in self._phases:
            phase.optimizer.load_state_dict(state_dict["optimizers"][phase.name])
            lay_out_states(phase.optimizer)
