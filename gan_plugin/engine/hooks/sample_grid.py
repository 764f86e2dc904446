"""Samples of the same latents, now and then."""

from contextlib import nullcontext

import torch
from detectron2.engine import HookBase

from ..rng import preserved_rng
from .ema import GeneratorEMA


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
        was_training = game.training
        game.eval()
        with preserved_rng(), self._ema.in_place() if self._ema else nullcontext():
            picture = game.picture()
        game.train(was_training)
        if picture is not None:
            self.trainer.storage.put_image(self.PICTURE, picture.float().cpu())
