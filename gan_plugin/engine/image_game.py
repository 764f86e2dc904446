"""GANs whose samples are whole images, outside of Detectron2's models: the game, its step and its trainer."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.engine import HookBase, default_writers
from detectron2.utils.events import EventWriter, get_event_storage
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from gan_plugin.layers.layout import lay_out_states
from gan_plugin.modeling.stability import mean_over_processes

from .check_config import check_finite
from .distributed import average_gradients, share_weights
from .hooks import BestCheckpoint, CollapseAlarm, GeneratorEMA, Histograms, PhaseSchedules, SampleGrid
from .loop import GameLoop
from .steps import GRADIENT_NORM_PERIOD, ObservedStep, mean_losses, mixed_precision, record_gradient_norm
from .train_loader import ResumableTrainLoader
from .writers import GamePrinter, SamplePictureWriter

Losses = dict[str, torch.Tensor]
_TOTALS = {"generator": "loss_gen_total", "discriminator": "loss_disc_total"}


@dataclass(frozen=True)
class Phase:
    """One player's step, after StyleGAN's list of phases: who learns, by which optimizer, from what, and how often.

    Attributes:
        name: of the player, such as "generator" or "discriminator".
        networks: that learn; every other network of the game is a constant meanwhile.
        optimizer: over their parameters.
        losses: (what `ImageGame.begin` returned) -> named scalars; their sum is minimised. Names of a discriminator's
            begin with `loss_disc_`.
        every: iterations between two steps, the first at iteration 0.
        gain: factor of the sum. A lazy regulariser counts `every` times (Karras et al. 2020, arXiv 1912.04958, 3.1).
        clip_norm: greatest Euclidean norm of all its gradients together; 0 for no clipping.
        clip_value: greatest absolute value of each entry of a gradient; 0 for no clipping.
    """

    name: str
    networks: Sequence[nn.Module]
    optimizer: torch.optim.Optimizer
    losses: Callable[[Any], Losses]
    every: int = 1
    gain: float = 1.0
    clip_norm: float = 0.0
    clip_value: float = 0.0

    def is_due(self, iteration: int) -> bool:
        """Whether this phase is played at `iteration`; a subclass may have another rhythm."""
        return iteration % self.every == 0

    def parameters(self) -> list[nn.Parameter]:
        """All that learns, in a fixed order."""
        return [parameter for network in self.networks for parameter in network.parameters()]


class ImageGame(nn.Module, ABC):
    """All networks of a GAN as submodules, one of them `generator`, and the losses of its players.

    A game puts its statistics into the event storage itself; `gan/image/d_real`, `d_fake` and `diversity` are shown on
    the console and watched by the collapse alarm.

    Attributes:
        generator: whose average and samples are kept.
        simultaneous: whether all players learn from the same weights and then move together, so that what `begin`
            computes serves all of them; their phases then must not share parameters. Else they move in turn.
    """

    generator: nn.Module
    simultaneous: bool = False

    @abstractmethod
    def phases(self) -> Sequence[Phase]:
        """In the order in which they are played; asked for once, when a trainer is built."""

    @abstractmethod
    def collate(self, items: list[Any]) -> Any:
        """A batch on the game's device, from what the loader yields."""

    def begin(self, batch: Any, iteration: int, keep_graph: bool) -> Any:
        """What the phases of this iteration get; here, where every network may learn, they can share a forward pass.

        Args:
            batch: of `collate`.
            iteration: its number.
            keep_graph: False with gradient accumulation, where the graphs of all batches would not fit.
        """
        return batch

    def picture(self) -> torch.Tensor | None:
        """A grid of samples of the same latents every time, (3, H, W) in [0, 1]; None if there is nothing to show."""
        return None


@contextmanager
def only_learning(game: nn.Module, networks: Sequence[nn.Module]) -> Iterator[None]:
    """Within the block only the parameters of `networks` need a gradient."""
    learning = {id(parameter) for network in networks for parameter in network.parameters()}
    frozen = [p for p in game.parameters() if p.requires_grad and id(p) not in learning]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


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


Evaluate = Callable[[ImageGame, str], Mapping[str, Any]]


@dataclass(frozen=True)
class ImageLoopOptions:
    """What happens around the steps of an `ImageLoop`.

    Attributes:
        output_dir: where checkpoints, samples and logs go.
        max_iter: iterations of the run.
        accumulate: batches of a step.
        amp: mixed precision, float16 on a GPU and bfloat16 on a CPU.
        ema_decay: of the generator's moving average, 0 for none.
        checkpoint_period, keep: iterations between checkpoints, and how many of the last are kept (0 for all).
        eval_period: iterations between scores, 0 for none on the way.
        best: scores, larger is better, or smaller after a minus as in "-ema/builtin/FID" -> the label of their
            checkpoint, such as "fid" for `model_best_fid.pth`.
        sample_period: iterations between grids of samples, 0 for none.
        write_period: iterations between lines of the log.
        histogram_period: iterations between histograms of weights and gradients in TensorBoard, 0 for none.
    """

    output_dir: str
    max_iter: int
    accumulate: int = 1
    amp: bool = False
    ema_decay: float = 0.0
    checkpoint_period: int = 1000
    keep: int = 0
    eval_period: int = 0
    best: Mapping[str, str] = field(default_factory=dict)
    sample_period: int = 0
    write_period: int = 20
    histogram_period: int = 0


class ImageLoop(GameLoop):
    """Trains an `ImageGame` with all that `GameLoop` promises: exact resume, safe checkpoints, a clean end on a signal.

    Several networks and optimizers, each player's phase at its own pace; grids of fixed latents, scores on the way with
    a checkpoint of the best in each, and an alarm when the samples collapse.
    """

    def __init__(
        self,
        game: ImageGame,
        data_loader: ResumableTrainLoader,
        options: ImageLoopOptions,
        *,
        evaluate: Evaluate | None = None,
        schedule: Callable[[Phase], LRScheduler | None] | None = None,
    ) -> None:
        """
        Args:
            game: on its device.
            data_loader: of the items that `game.collate` takes.
            options: of the loop.
            evaluate: (game, folder for files) -> nested results, such as {"builtin": {"FID": 31.2}}; called in every
                process, with the weights and, where there is one, with their average in place.
            schedule: phase -> the schedule of its optimizer, stepped every iteration; None for a constant rate.
        """
        self.options = options
        self._evaluator = evaluate
        phases = list(game.phases())
        share_weights(game)
        amp = mixed_precision(options.amp, game)
        step = ImageStep(game, phases, data_loader, accumulate=options.accumulate, amp=amp)
        # the generator's own names, so that the average loads into a bare generator
        ema = GeneratorEMA(game.generator, options.ema_decay) if options.ema_decay > 0 else None
        super().__init__(step, None, max_iter=options.max_iter, output_dir=options.output_dir, ema=ema)
        optimizers = {phase.name: phase.optimizer for phase in phases}
        found = {phase.name: schedule(phase) for phase in phases} if schedule else {}
        schedulers = {name: scheduler for name, scheduler in found.items() if scheduler is not None}
        self.register_hooks(self._build_hooks(PhaseSchedules(optimizers, schedulers)))

    def _build_hooks(self, schedules: HookBase) -> list[HookBase]:
        options = self.options
        best = [
            BestCheckpoint(self.checkpointer, metric, self._ema, label=label) for metric, label in options.best.items()
        ]
        return self.arrange_hooks(
            [schedules],
            checkpoints={"period": options.checkpoint_period, "max_to_keep": options.keep or None},
            eval_period=options.eval_period if self._evaluator else 0,
            eval_at_end=self._evaluator is not None,
            write_period=options.write_period,
            observers=[
                *best,
                SampleGrid(options.sample_period, self._ema),
                Histograms(options.histogram_period),
                CollapseAlarm(),
            ],
        )

    def build_writers(self) -> list[EventWriter]:
        folder = self.options.output_dir
        pictures = SamplePictureWriter(os.path.join(folder, "samples"), SampleGrid.PICTURE, zoom=1)
        return [pictures, *default_writers(folder, self.max_iter), GamePrinter()]

    def evaluate_weights(self, subfolder: str) -> Any:
        if self._evaluator is None:
            return {}
        return dict(self._evaluator(self.game, os.path.join(self.options.output_dir, subfolder)))

    def resume_or_load(self, weights: str = "", *, resume: bool) -> None:
        """Load the last checkpoint with all its states if `resume` is set and there is one, else `weights`.

        Args:
            weights: path of a checkpoint of the same networks, "" for a fresh start.
            resume: whether to continue the run in the output directory.

        Raises:
            UserError: the file cannot be read; see SafeCheckpointer.
        """
        self.checkpointer.resume_or_load(weights, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = self.iter + 1

    @property
    def game(self) -> ImageGame:
        """The networks."""
        return self._trainer.model

    @property
    def model(self) -> nn.Module:
        """The same, under the name that Detectron2's hooks know."""
        return self._trainer.model

    @property
    def data_loader(self) -> Any:
        """What training batches come from."""
        return self._trainer.data_loader

    @property
    def optimizer(self) -> Any:
        """The first phase's."""
        return self._trainer.optimizer
