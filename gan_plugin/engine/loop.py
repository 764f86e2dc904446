"""What a trainer of two players does around its steps, whichever kind of config has described them."""

import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.engine import HookBase, TrainerBase, default_writers, hooks
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventWriter
from torch.optim.lr_scheduler import LRScheduler

from gan_plugin.metrics import FILE, final_scores, read_metrics
from gan_plugin.modeling.meta_arch import discriminator_parameters, lend_average

from .check_config import NonFiniteLossError, diverged, quiet_user_errors
from .checkpoint import AVERAGE, FINAL, SafeCheckpointer, checkpoint_file
from .distributed import StopOnSignal, capture_rng_state, preserved_rng, restore_rng_state
from .hooks import (
    BestCheckpoint,
    DiscriminatorLRScheduler,
    Evaluation,
    GeneratorEMA,
    JointLRScheduler,
    PeriodicCheckpoint,
)
from .optimizers import put_settings, settings_of
from .steps import AlternatingStep, ObservedStep
from .train_loader import ResumableTrainLoader
from .writers import GamePrinter, SamplePictureWriter, append_metrics, finite_metrics, log_results

_logger = logging.getLogger(__name__)
# what the results with test-time augmentation are filed under
TTA = "tta"


class GameLoop(TrainerBase):
    """Detectron2's training loop with exact resume, safe checkpoints, the moving average and a clean end on a signal.

    A subclass builds the parts, registers `arrange_hooks`, and says in `evaluate_weights` how to evaluate.
    """

    model: Any
    data_loader: Any
    optimizer: Any
    checkpointer_class: type[SafeCheckpointer] = SafeCheckpointer

    def __init__(
        self,
        step: ObservedStep,
        scheduler: LRScheduler | None,
        *,
        max_iter: int,
        output_dir: str,
        ema: GeneratorEMA | None = None,
        evaluate_ema: bool = True,
    ) -> None:
        """
        Args:
            step: one iteration, with model, loader and optimizers.
            scheduler: of the step's (first) optimizer; None if the hooks bring their own.
            max_iter: iterations of the run.
            output_dir: where checkpoints and logs go.
            ema: the generator's moving average, if one is kept.
            evaluate_ema: whether it is evaluated beside the weights.
        """
        TrainerBase.__init__(self)
        self._trainer = step
        self.scheduler = scheduler
        self.max_iter = max_iter
        self._output_dir = output_dir
        self._ema = ema
        self._evaluate_ema = evaluate_ema
        if ema is not None:
            lend_average(step.model, ema.in_place)
        self.checkpointer = self.checkpointer_class(step.model, output_dir, trainer=weakref.proxy(self))
        self._stop = StopOnSignal(self.checkpointer)
        self._rng_state: dict[str, Any] | None = None
        self._eval_period, self._evaluates_at_end = 0, False
        self._resumes_exactly = isinstance(step.data_loader, ResumableTrainLoader)
        if not self._resumes_exactly:
            _logger.warning("The training loader is not a ResumableTrainLoader: --resume will start its data anew.")

    def arrange_hooks(
        self,
        schedules: Sequence[HookBase],
        *,
        checkpoints: Mapping[str, Any],
        eval_period: int,
        eval_at_end: bool,
        best_metric: str = "",
        write_period: int = 20,
        precise_bn: HookBase | None = None,
        observers: Sequence[HookBase] = (),
    ) -> list[HookBase]:
        """The hooks, in this order for these reasons.

        Schedules and the average first: a checkpoint of iteration i must hold what iteration i + 1 starts with.
        Checkpoint before evaluation: what fails there has been saved. A signal is answered after the checkpoint's turn
        and before a long evaluation. The best checkpoint needs the evaluation's result, the writers everyone's.

        Args:
            schedules: `schedule_hooks`.
            checkpoints: arguments of Detectron2's PeriodicCheckpointer, `period` among them.
            eval_period: iterations between evaluations, 0 for none during training.
            eval_at_end: whether to evaluate at the end.
            best_metric: what the best checkpoint is the best in, such as "segm/AP"; "" keeps none.
            write_period: iterations between lines of the log.
            precise_bn: Detectron2's hook, if wanted.
            observers: what else looks at an evaluation or at the step before the writers do.
        """
        self._eval_period, self._evaluates_at_end = eval_period, eval_at_end
        ret = [hooks.IterationTimer(), *schedules, self._ema, precise_bn]
        if comm.is_main_process():
            ret.append(PeriodicCheckpoint(self.checkpointer, **checkpoints))
        ret.append(self._stop)
        ret.append(Evaluation(eval_period, self._evaluate, self._stop, eval_at_end))
        ret += observers
        if comm.is_main_process():
            if best_metric:
                ret.append(BestCheckpoint(self.checkpointer, best_metric, self._ema))
            ret.append(hooks.PeriodicWriter(self.build_writers(), period=write_period))
        return [hook for hook in ret if hook is not None]

    def schedule_hooks(self, disc_scheduler: LRScheduler | None, disc_lr_factor: float) -> list[HookBase]:
        """The hooks that step and record the learning rates.

        Args:
            disc_scheduler: of the discriminator's own optimizer in the alternating mode.
            disc_lr_factor: what one optimizer for both multiplies the discriminator's steps by.
        """
        if isinstance(self._trainer, AlternatingStep):
            return [hooks.LRScheduler(), DiscriminatorLRScheduler(self._trainer.disc_optimizer, disc_scheduler)]
        if discriminator_parameters(self.model):
            return [JointLRScheduler(disc_lr_factor)]
        return [hooks.LRScheduler()]

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's console, JSON and TensorBoard writers, and ours for the game."""
        pictures = SamplePictureWriter(os.path.join(self._output_dir, "samples"))
        return [pictures, *default_writers(self._output_dir, self.max_iter), GamePrinter()]

    def evaluate_weights(self, subfolder: str) -> Any:
        """Evaluate what the model holds; returns nested results.

        Args:
            subfolder: of the output directory, for the evaluation's files; "" for the directory itself.
        """
        raise NotImplementedError

    def evaluate_augmented(self, subfolder: str) -> Any:
        """As `evaluate_weights`, with test-time augmentation, at the end of a run; {} without."""
        return {}

    def before_train(self) -> None:
        super().before_train()
        if self._rng_state is not None:
            # The checkpoint has the first process' state only; the others must not draw the same numbers.
            if comm.is_main_process():
                restore_rng_state(self._rng_state)
            else:
                seed_all_rng((self.start_iter + 1) * comm.get_world_size() + comm.get_rank())
            self._rng_state = None

    def after_train(self) -> None:
        try:
            if self._ema is not None and self.iter >= self.max_iter and comm.is_main_process():
                self.checkpointer.save_weights(AVERAGE, self._ema.generator_state())
            super().after_train()
        finally:
            self._stop.restore()

    def train(self) -> OrderedDict | None:
        """Train from `start_iter` to `max_iter`; returns the last evaluation's results, if any."""
        if self.start_iter >= self.max_iter:
            final = checkpoint_file(self._output_dir, FINAL)
            done = f"The run in {self._output_dir} has its {self.max_iter} iterations: nothing left to train"
            _logger.info(f"{done}. Its weights are {final}.")
            self._write_lost_files()
            self._make_up_for_a_lost_evaluation()
        else:
            self._make_up_for_a_lost_evaluation()
            with quiet_user_errors():
                self._loop()
        return getattr(self, "_last_eval_results", None)

    def _write_lost_files(self) -> None:
        # A run may be killed after its last periodic checkpoint, which holds all of them, and before the last of these.
        if self.start_iter > self.max_iter or not comm.is_main_process():
            return
        if not checkpoint_file(self._output_dir, FINAL).exists():
            if self._rng_state is not None:
                restore_rng_state(self._rng_state)
            self.checkpointer.save(FINAL, iteration=self.iter)
        if self._ema is not None and not checkpoint_file(self._output_dir, AVERAGE).exists():
            self.checkpointer.save_weights(AVERAGE, self._ema.generator_state())

    def _make_up_for_a_lost_evaluation(self) -> None:
        # A kill may come between a checkpoint and the end of the evaluation after it, whose numbers are written when
        # all of them are there. The other processes may have no metrics.json to look at.
        if self.start_iter > self.max_iter or not comm.all_gather(self._lacks_scores())[0]:
            return
        if self._rng_state is not None and comm.is_main_process():
            restore_rng_state(self._rng_state)
        with preserved_rng():
            scores = self._evaluate()
        if comm.is_main_process():
            append_metrics(self._output_dir, self._last_eval_results, iteration=self.iter)
        for hook in self._best_checkpoints():
            hook.judge_late(scores, self.iter)

    def _lacks_scores(self) -> bool:
        """Whether the weights that were loaded should have been evaluated, and what is asked of that is not there."""
        if self.start_iter >= self.max_iter:
            return self._evaluates_at_end and not final_scores(self._output_dir, self.max_iter)
        if not self.start_iter or not self._eval_period or self.start_iter % self._eval_period:
            return False
        lines = read_metrics(os.path.join(self._output_dir, FILE))
        # An evaluation has a line of its own, which counts one more where it was the last of a run that goes on longer.
        known = {key for line in lines if line["iteration"] in (self.iter, self.start_iter) for key in line}
        return any(hook.metric not in known for hook in self._best_checkpoints())

    def _best_checkpoints(self) -> list[BestCheckpoint]:
        return [hook for hook in self._hooks if isinstance(hook, BestCheckpoint)]

    def _loop(self) -> None:
        TrainerBase.train(self, self.start_iter, self.max_iter)

    def run_step(self) -> None:
        self._trainer.iter = self.iter
        try:
            self._trainer.run_step()
        except NonFiniteLossError:
            raise
        except FloatingPointError as error:
            # Detectron2's region proposals refuse values that are not finite before there is a loss to look at.
            raise diverged(self.iter, str(error)) from error

    def state_dict(self) -> dict[str, Any]:
        own = {"_trainer": self._trainer.state_dict(), "rng": capture_rng_state()}
        data = self.data_loader.state_dict() if self._resumes_exactly else None
        return {**TrainerBase.state_dict(self), **own, "data": data}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        settings = [settings_of(optimizer) for optimizer in self._trainer.optimizers]
        schedulers = [scheduler for hook in self._hooks for scheduler in _schedulers_of(hook)]
        rates = [scheduler.base_lrs for scheduler in schedulers]
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])
        for optimizer, asked in zip(self._trainer.optimizers, settings, strict=True):
            put_settings(optimizer, asked)
        for scheduler, asked_rates in zip(schedulers, rates, strict=True):
            scheduler.base_lrs = asked_rates
        if self._resumes_exactly and state_dict["data"] is not None:
            first = (self.iter + 1) * self._trainer.accumulate
            self.data_loader.load_state_dict(state_dict["data"], first_batch=first)
        self._rng_state = state_dict["rng"]

    def _evaluate(self) -> dict[str, float]:
        results = self._results("")
        if self._ema is not None and self._evaluate_ema:
            with self._ema.in_place():
                results["ema"] = self._results("ema")
        self._last_eval_results = results
        if comm.is_main_process():
            log_results(results)
        return finite_metrics(results)

    def _results(self, subfolder: str) -> Any:
        results = self.evaluate_weights(subfolder)
        at_end = max(self.iter, self.start_iter) >= self.max_iter
        augmented = self.evaluate_augmented(subfolder) if at_end else {}
        return {**results, TTA: augmented} if augmented else results


def _schedulers_of(hook: HookBase) -> list[Any]:
    one = hook.scheduler if isinstance(hook, hooks.LRScheduler) else None
    return getattr(hook, "schedulers", [] if one is None else [one])
