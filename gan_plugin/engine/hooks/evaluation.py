"""Periodic evaluation that leaves training untouched."""

from detectron2.engine.hooks import EvalHook

from ..rng import preserved_rng


class Evaluation(EvalHook):
    """Detectron2's EvalHook, except that the random state of training is preserved and a failed run is not evaluated.

    EvalHook also evaluates when the very last iteration fails; only a run that reached the end has `iter == max_iter`.
    """

    def _do_eval(self) -> None:
        with preserved_rng():
            super()._do_eval()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()
