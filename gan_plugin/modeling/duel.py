"""What two players make of a discriminator's verdicts: labels to losses, and what the log says of the game."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.utils.events import get_event_storage

from .objectives import AdversarialObjective, Verdicts
from .stability import LabelNoise

Judge = Callable[[torch.Tensor], Verdicts]
HARD_LABELS = LabelNoise((1.0, 1.0), (0.0, 0.0), 0.0)


@dataclass(frozen=True)
class Duel:
    """The losses of both players of one discriminator, whatever it judges.

    Attributes:
        objective: what they minimise.
        labels: what the discriminator's targets are drawn from, if the objective has any.
    """

    objective: AdversarialObjective
    labels: LabelNoise = HARD_LABELS

    def discriminator_loss(self, on_real: Verdicts, on_fake: Verdicts) -> torch.Tensor:
        """A scalar, with labels drawn anew."""
        targets: tuple[Any, Any] = (None, None)
        if self.objective.uses_labels:
            targets = self.labels.draw(on_real, is_real=True), self.labels.draw(on_fake, is_real=False)
        return self.objective.discriminator_loss(on_real, on_fake, *targets)

    def generator_loss(self, judge: Judge, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """A scalar."""
        on_real = self.beside(judge, real)
        return self.objective.generator_loss(judge(fake), on_real)

    def beside(self, judge: Judge, real: torch.Tensor) -> Verdicts:
        """What the generator's loss takes beside the verdicts on its own samples: those on `real`, without a gradient,
        if the objective looks at pairs, else None."""
        if not self.objective.pairs:
            return None
        with torch.no_grad():
            return judge(real)

    @torch.no_grad()
    def statistics(self, on_real: Verdicts, on_fake: Verdicts) -> dict[str, torch.Tensor]:
        """Scalars in [0, 1]: the mean probabilities "d_real" and "d_fake", and "d_accuracy", the share of right
        verdicts; nothing if the objective does not say."""
        probabilities = self.objective.probabilities(on_real, on_fake)
        if probabilities is None:
            return {}
        real, fake = (values.flatten().float() for values in probabilities)
        right = torch.cat([real > 0.5, fake <= 0.5]).float()
        return {"d_real": real.mean(), "d_fake": fake.mean(), "d_accuracy": right.mean()}

    def record(self, player: str, on_real: Verdicts, on_fake: Verdicts) -> float:
        """Put the statistics into the event storage as `gan/<player>/...`; the accuracy, 0 if it is not known."""
        return record_statistics(player, self.statistics(on_real, on_fake)).get("d_accuracy", 0.0)


def record_statistics(player: str, statistics: dict[str, torch.Tensor]) -> dict[str, float]:
    """Put scalars into the event storage as `gan/<player>/<name>`, and return them."""
    if not statistics:
        return {}
    # One transfer for all of them: each makes a GPU wait.
    values = dict(zip(statistics, torch.stack(list(statistics.values())).tolist(), strict=True))
    get_event_storage().put_scalars(**{f"gan/{player}/{name}": value for name, value in values.items()})
    return values
