"""Periodic evaluation that leaves training untouched."""

from collections.abc import Callable
from typing import Any

from detectron2.engine.hooks import EvalHook

from ..rng import preserved_rng
from .stop_signal import StopOnSignal


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
