"""One discriminator with its objective: the losses that it adds for either player."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.func import functional_call

from .discriminators import build_discriminator
from .labels import LabelNoise
from .losses import AdversarialObjective, build_objective
from .samples import MaskPresenter, MaskSamples, reconstruction_loss


class MaskAdversary(nn.Module):
    """The mask discriminator of the thesis and what both players minimise because of it.

    `generator_losses` gives no gradient to the discriminator and `discriminator_losses` none to the generator, whoever
    calls backward on them; so a stock trainer may sum everything.
    """

    @configurable
    def __init__(
        self,
        *,
        discriminator: nn.Module,
        objective: AdversarialObjective,
        presenter: MaskPresenter,
        labels: LabelNoise,
        weight: float = 1.0,
        rec_weight: float = 100.0,
    ) -> None:
        """
        Args:
            discriminator: (R, 1, S, S) in [-1, 1] -> (R,) logits.
            objective: the adversarial losses.
            presenter: makes the discriminator's input from samples.
            labels: draws the discriminator's targets.
            weight: factor of the generator's adversarial loss.
            rec_weight: factor of the mean absolute error between matched masks (lambda in the thesis).
        """
        super().__init__()
        self.discriminator = discriminator
        self.objective = objective
        self.presenter = presenter
        self.labels = labels
        self.weight = weight
        self.rec_weight = rec_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        gan = cfg.MODEL.GAN
        labels = LabelNoise(tuple(gan.LABELS.REAL), tuple(gan.LABELS.FAKE), gan.LABELS.FLIP_PROB)
        return {
            "objective": build_objective(gan.MASK.OBJECTIVE),
            "discriminator": build_discriminator(cfg),
            "presenter": MaskPresenter.from_config(cfg),
            "labels": labels,
            "weight": gan.MASK.WEIGHT,
            "rec_weight": gan.MASK.REC_WEIGHT,
        }

    def generator_losses(self, samples: MaskSamples, ramp: float = 1.0) -> dict[str, torch.Tensor]:
        """`loss_adv_mask` and `loss_rec_mask`, scalars; `ramp` in [0, 1] multiplies both.

        Without samples, or at ramp 0, both are zeros that still reach every logit.
        """
        if len(samples) == 0 or ramp == 0:
            zero = samples.logits.sum() * 0
            return {"loss_adv_mask": zero, "loss_rec_mask": zero.clone()}
        verdicts = self._judge_as_constant(self.presenter.predicted(samples))
        return {
            "loss_adv_mask": self.objective.generator_loss(verdicts) * (self.weight * ramp),
            "loss_rec_mask": reconstruction_loss(samples) * (self.rec_weight * ramp),
        }

    def discriminator_losses(self, samples: MaskSamples) -> dict[str, torch.Tensor]:
        """`loss_disc_mask`, a scalar; real and fake pass one after the other, so BatchNorm sees them separately.

        Records the probabilities D(real), D(fake) and the share of right verdicts. Without samples it is a zero that
        still reaches every parameter, so that no process of a distributed run waits for a gradient.
        """
        if len(samples) == 0:
            return {"loss_disc_mask": self.idle_loss()}
        samples = samples.detach()
        real = self.discriminator(self.presenter.real(samples))
        fake = self.discriminator(self.presenter.predicted(samples))
        _record(self.objective.verdict(real.detach()), self.objective.verdict(fake.detach()))
        targets = self.labels.draw(real, is_real=True), self.labels.draw(fake, is_real=False)
        return {"loss_disc_mask": self.objective.discriminator_loss(real, fake, *targets)}

    def idle_loss(self) -> torch.Tensor:
        """A zero that depends on every parameter of the discriminator."""
        return torch.stack([parameter.sum() * 0 for parameter in self.parameters()]).sum()

    def _judge_as_constant(self, masks: torch.Tensor) -> torch.Tensor:
        # Detached weights and copied buffers: the verdict's gradient reaches the masks alone, and BatchNorm's running
        # statistics see each fake once, in the discriminator's own pass.
        state = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        state |= {name: buffer.clone() for name, buffer in self.discriminator.named_buffers()}
        return functional_call(self.discriminator, state, (masks,))


def _record(real: torch.Tensor, fake: torch.Tensor) -> None:
    right = torch.cat([real > 0.5, fake <= 0.5]).float().mean()
    get_event_storage().put_scalars(
        **{"gan/d_real": real.mean().item(), "gan/d_fake": fake.mean().item(), "gan/d_accuracy": right.item()}
    )
