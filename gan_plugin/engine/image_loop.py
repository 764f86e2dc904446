"""The trainer of GANs whose samples are whole images, outside of Detectron2's models."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from detectron2.engine import HookBase, default_writers
from detectron2.utils.events import EventWriter
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from .distributed import share_weights
from .hooks import BestCheckpoint, CollapseAlarm, GeneratorEMA, Histograms, PhaseSchedules, SampleGrid
from .image_game import ImageGame, Phase
from .image_step import ImageStep
from .loop import GameLoop
from .steps import mixed_precision
from .train_loader import ResumableTrainLoader
from .writers import GamePrinter, SamplePictureWriter

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
