"""What happens around the step; AdversarialTrainer.build_hooks says in which order and why."""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook, LRScheduler, PeriodicCheckpointer
from detectron2.utils import comm
from torch import nn
from torch.optim.lr_scheduler import LRScheduler as Schedule

from gan_plugin.engine.checkpoint import with_versions
from gan_plugin.files import write_whole
from gan_plugin.modeling.masks_of_some import modes_kept

from .checkpoint import SafeCheckpointer, best_name, periodic_checkpoints
from .distributed import StopOnSignal, preserved_rng

__all__ = [
    "BestCheckpoint",
    "CollapseAlarm",
    "DiscriminatorLRScheduler",
    "Evaluation",
    "GeneratorEMA",
    "Histograms",
    "JointLRScheduler",
    "PeriodicCheckpoint",
    "PhaseSchedules",
    "SampleGrid",
]
# "lr" is the one that Detectron2's console shows; the second is the name in the alternating mode
_RATE_NAMES = {"generator": "lr", "discriminator": "lr_disc"}
_logger = logging.getLogger(__name__)
# iterations over which an alarm takes a median
_ALARM_WINDOW = 100


class DiscriminatorLRScheduler(LRScheduler):
    """Steps the discriminator's schedule and records its rate as `lr_disc`.

    A class of its own because TrainerBase saves the state of hooks under their class names.
    """

    def after_step(self) -> None:
        self.trainer.storage.put_scalar("lr_disc", self._optimizer.param_groups[0]["lr"], smoothing_hint=False)
        self.scheduler.step()


class JointLRScheduler(LRScheduler):
    """Detectron2's hook, which also records what the one optimizer's rate means for the discriminator."""

    def __init__(self, disc_lr_factor: float) -> None:
        """
        Args:
            disc_lr_factor: what the discriminator's steps are multiplied by in comparison with the generator's.
        """
        super().__init__()
        self._factor = disc_lr_factor

    def after_step(self) -> None:
        rate = self._optimizer.param_groups[self._best_param_group_id]["lr"]
        self.trainer.storage.put_scalar("lr_disc", rate * self._factor, smoothing_hint=False)
        super().after_step()


class PhaseSchedules(HookBase):
    """Steps every schedule after every iteration, and records each rate as `lr`, `lr_disc` or `lr_<phase>`."""

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer], schedulers: Mapping[str, Schedule]) -> None:
        """
        Args:
            optimizers: of all phases, by the phase's name.
            schedulers: of some of them.
        """
        self._optimizers = optimizers
        self._schedulers = schedulers

    @property
    def schedulers(self) -> list[Schedule]:
        """All of them."""
        return list(self._schedulers.values())

    def after_step(self) -> None:
        for name, optimizer in self._optimizers.items():
            rate = optimizer.param_groups[0]["lr"]
            self.trainer.storage.put_scalar(_RATE_NAMES.get(name, f"lr_{name}"), rate, smoothing_hint=False)
        for scheduler in self._schedulers.values():
            scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: scheduler.state_dict() for name, scheduler in self._schedulers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, scheduler in self._schedulers.items():
            scheduler.load_state_dict(state[name])


class GeneratorEMA(HookBase):
    """Averages the generator's weights after every step; buffers are copied, the discriminator is left out.

    The decay of step t is min(decay, (1 + t) / (10 + t)), so that the random start is forgotten in a short run too.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """
        Args:
            model: whose generator is averaged.
            decay: in [0, 1), the weight of the old average at each step.
        """
        self._decay = decay
        self._updates = 0
        players = getattr(model, "adversaries", None)
        of_player = set() if players is None else {id(t) for t in (*players.parameters(), *players.buffers())}
        self._weights = {n: p for n, p in model.named_parameters() if id(p) not in of_player}
        self._buffers = {n: b for n, b in model.named_buffers() if id(b) not in of_player}
        state = model.state_dict()
        self._kept = with_versions(dict.fromkeys(state, torch.empty(0)), state)
        self._average = {n: t.detach().clone() for n, t in self._live().items()}

    def before_train(self) -> None:
        # The weights of a checkpoint are loaded after the hooks are built.
        if self._updates == 0:
            self._copy(self._live(), self._average)

    @torch.no_grad()
    def after_step(self) -> None:
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, weight in self._weights.items():
            self._average[name].lerp_(weight, 1 - decay)
        for name, buffer in self._buffers.items():
            self._average[name].copy_(buffer)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model holds the averaged weights."""
        live = self._live()
        original = {name: tensor.detach().clone() for name, tensor in live.items()}
        self._copy(self._average, live)
        try:
            yield
        finally:
            self._copy(original, live)

    def generator_state(self) -> dict[str, torch.Tensor]:
        """The average as a state dict that the plain model of the same config loads."""
        return with_versions({name: t for name, t in self._average.items() if name in self._kept}, self._kept)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._updates = state["updates"]
        self._copy(state["average"], self._average)

    def _live(self) -> dict[str, torch.Tensor]:
        return {**self._weights, **self._buffers}

    @staticmethod
    @torch.no_grad()
    def _copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
        for name, tensor in target.items():
            tensor.copy_(source[name])


class PeriodicCheckpoint(PeriodicCheckpointer):
    """Detectron2's hook, except that `max_to_keep` counts the checkpoints from before a resume as well."""

    def before_train(self) -> None:
        super().before_train()
        own = [str(file) for file in periodic_checkpoints(self.checkpointer.save_dir).values()]
        self.recent_checkpoints = own if self.trainer.start_iter > 0 else []


class BestCheckpoint(HookBase):
    """Saves `model_best.pth` whenever an evaluation beats all before it, and its score in `model_best.json`.

    A run may keep several, each under its own name, since scores may disagree.

    The score is read from that file when a run resumes. Detectron2's BestCheckpointer forgets it, and makes its file
    the one that `--resume` continues from.

    Attributes:
        metric: name of the scalar.
    """

    def __init__(
        self,
        checkpointer: SafeCheckpointer,
        metric: str,
        ema: GeneratorEMA | None = None,
        *,
        label: str = "",
    ) -> None:
        """
        Args:
            checkpointer: writes the file.
            metric: name of a scalar that evaluation records, such as "segm/AP"; larger is better, or smaller after a
                minus, as in "-val_loss/total".
            ema: whose weights are saved where `metric` is one of its own ("ema/...").
            label: of this score in the names of its files, such as "fid" for `model_best_fid.pth`.
        """
        self._checkpointer = checkpointer
        self.metric = metric.removeprefix("-")
        self._sign = -1.0 if metric.startswith("-") else 1.0
        self._ema = ema
        self._name = best_name(label)
        self._record = os.path.join(checkpointer.save_dir, f"{self._name}.json")
        # times the sign, so that larger is better
        self._best = -math.inf
        self._judged = -1

    def before_train(self) -> None:
        if self.trainer.start_iter > 0:
            self._read_record()

    def _read_record(self) -> None:
        if os.path.exists(self._record):
            try:
                with open(self._record, encoding="utf-8") as file:
                    record = json.load(file)
                if record["metric"] == self.metric:
                    self._best = self._sign * float(record["value"])
            except (OSError, ValueError, KeyError, TypeError):
                _logger.warning(f"{self._record} cannot be read; the next evaluation counts as the best so far.")

    def after_step(self) -> None:
        value, iteration = self.trainer.storage.latest().get(self.metric, (math.nan, self._judged))
        if iteration != self._judged:
            self._judge(value, iteration)

    def judge_late(self, scores: Mapping[str, float], iteration: int) -> None:
        """Judge what a run that goes on has found out of the weights it begins with, those of `iteration`."""
        self._read_record()
        if self.metric in scores:
            self._judge(scores[self.metric], iteration)

    def _judge(self, value: float, iteration: int) -> None:
        self._judged = iteration
        if self._sign * value > self._best:
            self._best = self._sign * value
            _logger.info(f"Best {self.metric} so far: {value:.3f} at iteration {iteration}.")
            if self._ema is not None and self.metric.startswith("ema/"):
                self._checkpointer.save_weights(self._name, self._ema.generator_state())
            else:
                self._checkpointer.save(self._name, iteration=iteration)
            record = json.dumps({"metric": self.metric, "value": value, "iteration": iteration})
            write_whole(self._record, record, "Free some disk space and --resume.")

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self.after_step()
            if self._judged < 0:
                _logger.warning(f"No evaluation gave {self.metric}; check TEST.BEST_METRIC.")


class Evaluation(EvalHook):
    """Detectron2's EvalHook, except for three things.

    The random state of training is preserved. A signal ends the evaluation at once, since there is nothing in it to
    save. And a failed run is not evaluated: EvalHook does so if it is the very last iteration that fails; only a run
    that reached the end has `iter == max_iter`.
    """

    def __init__(self, period: int, evaluate: Callable[[], Any], stop: StopOnSignal, eval_after_train: bool) -> None:
        """
        Args:
            period: iterations between evaluations, 0 for none during training.
            evaluate: returns a dictionary of scalars.
            stop: takes care of signals.
            eval_after_train: whether to evaluate at the end.
        """
        super().__init__(period, evaluate, eval_after_train)
        self._stop = stop

    def _do_eval(self) -> None:
        with self._stop.at_once(), preserved_rng():
            super()._do_eval()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()


class CollapseAlarm(HookBase):
    """Warns when all samples look alike, or when the discriminator has won; training goes on.

    It reads `gan/image/diversity`, the spread of the generated samples over that of the real ones, and
    `loss_disc_total`, as medians of the last 100 iterations. Each alarm sounds once until the value has recovered.
    """

    def __init__(self, least_diversity: float = 0.1, least_loss: float = 1e-3, patience: int = 100) -> None:
        """
        Args:
            least_diversity: a ratio below it is a collapse.
            least_loss: a discriminator's absolute loss below it gives the generator nothing to learn from.
            patience: iterations before the first alarm.
        """
        self._limits = {"gan/image/diversity": least_diversity, "loss_disc_total": least_loss}
        self._patience = patience
        self._sounded: set[str] = set()

    def after_step(self) -> None:
        if self.trainer.iter + 1 < self._patience or (self.trainer.iter + 1) % 20:
            return
        histories = self.trainer.storage.histories()
        alarms = 0
        for name, limit in self._limits.items():
            if name not in histories:
                continue
            value = abs(histories[name].median(_ALARM_WINDOW))
            if value >= limit:
                self._sounded.discard(name)
                continue
            alarms += 1
            if name not in self._sounded:
                self._sounded.add(name)
                _logger.warning(self._sentence(name, value))
        self.trainer.storage.put_scalar("gan/alarms", alarms, smoothing_hint=False)

    def _sentence(self, name: str, value: float) -> str:
        when = f"since about iteration {max(0, self.trainer.iter - _ALARM_WINDOW)}"
        if name == "loss_disc_total":
            return f"The discriminator's loss is {value:.2g} {when}: it has won, and the generator learns nothing more."
        return f"The samples differ {value:.2g} times as much as real images {when}: the generator has collapsed."


class Histograms(HookBase):
    """Puts a histogram of each weight of more than one dimension, and of its last gradient, into the event storage."""

    def __init__(self, period: int) -> None:
        """
        Args:
            period: iterations between histograms, 0 for none.
        """
        self._period = period

    @torch.no_grad()
    def after_step(self) -> None:
        # without a writer, as in the other processes, they would pile up
        if self._period < 1 or (self.trainer.iter + 1) % self._period or not comm.is_main_process():
            return
        for name, parameter in self.trainer.model.named_parameters():
            if parameter.dim() < 2:
                continue
            self.trainer.storage.put_histogram(f"weights/{name}", parameter.detach().float().cpu())
            if parameter.grad is not None:
                self.trainer.storage.put_histogram(f"gradients/{name}", parameter.grad.detach().float().cpu())


class SampleGrid(HookBase):
    """Puts the game's picture, drawn with the averaged weights if there are any, into the event storage."""

    PICTURE = "gan/samples of the same latents"

    def __init__(self, period: int, ema: GeneratorEMA | None) -> None:
        """
        Args:
            period: iterations between pictures, 0 for none.
            ema: the generator's average.
        """
        self._period = period
        self._ema = ema

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period > 0 and (done % self._period == 0 or done in (1, self.trainer.max_iter)):
            self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        game = self.trainer.model
        with modes_kept(game), preserved_rng(), self._ema.in_place() if self._ema else nullcontext():
            game.eval()
            picture = game.picture()
        if picture is not None:
            self.trainer.storage.put_image(self.PICTURE, picture.float().cpu())
