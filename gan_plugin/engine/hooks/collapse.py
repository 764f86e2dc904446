"""An alarm for the two ways in which a game stops to teach anything."""

import logging

from detectron2.engine import HookBase

_logger = logging.getLogger(__name__)
_SMOOTHING = 100


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
            value = abs(histories[name].median(_SMOOTHING))
            if value >= limit:
                self._sounded.discard(name)
                continue
            alarms += 1
            if name not in self._sounded:
                self._sounded.add(name)
                _logger.warning(self._sentence(name, value))
        self.trainer.storage.put_scalar("gan/alarms", alarms, smoothing_hint=False)

    def _sentence(self, name: str, value: float) -> str:
        when = f"since about iteration {max(0, self.trainer.iter - _SMOOTHING)}"
        if name == "loss_disc_total":
            return f"The discriminator's loss is {value:.2g} {when}: it has won, and the generator learns nothing more."
        return f"The samples differ {value:.2g} times as much as real images {when}: the generator has collapsed."
