"""Mask R-CNN as one player of a game: the generator, its adversary, and where each gradient goes."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.utils.events import get_event_storage
from torch import nn

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError

from .adversary import MaskAdversary
from .sample_grid import sample_grid
from .samples import SAMPLES_KEY, MaskSamples

DISC_LOSS_PREFIX = "loss_disc_"
SAMPLE_PICTURE = "gan/masks: real above fake"


@META_ARCH_REGISTRY.register()
class AdversarialRCNN(GeneralizedRCNN):
    """Detectron2's GeneralizedRCNN with a discriminator of masks beside it.

    In training `forward` returns one flat dictionary of scalar losses. Names that begin with `loss_disc_` are the
    discriminator's, all others the generator's, and gradients are routed: calling backward on their sum gives each
    player the gradient of its own losses only. That is the joint mode, which any Detectron2 trainer can run. In the
    alternating mode a trainer calls `generator_forward`, `discriminator_losses` and `adversarial_losses` instead.

    With `MODEL.GAN.ENABLED: False` no discriminator exists and the model is GeneralizedRCNN, bit for bit; all of the
    generator's parameters have GeneralizedRCNN's names in either case.
    """

    # what a mask head that emits samples looks for
    takes_mask_samples = True

    @configurable
    def __init__(
        self,
        *,
        mask_adversary: MaskAdversary | None = None,
        mode: str = "joint",
        start_iter: int = 0,
        warmup_iters: int = 0,
        disc_lr_factor: float = 1.0,
        sample_period: int = 0,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            mask_adversary: the mask discriminator with its losses; None for the plain model.
            mode: "joint" or "alternating".
            start_iter: the first iteration with adversarial losses.
            warmup_iters: iterations over which the generator's adversarial terms then rise to full weight.
            disc_lr_factor: joint mode's factor on the discriminator's gradients.
            sample_period: iterations between pictures of real and fake masks; 0 for none.
            kwargs: those of GeneralizedRCNN.

        Raises:
            UserError: there is an adversary but the mask head gives no samples.
        """
        super().__init__(**kwargs)
        if mask_adversary is not None and not getattr(
            getattr(self.roi_heads, "mask_head", None), "emit_samples", False
        ):
            raise UserError(
                "MODEL.GAN.ENABLED needs a mask head that hands out its masks: set MODEL.MASK_ON to True and "
                "MODEL.ROI_MASK_HEAD.NAME to AdversarialMaskHead."
            )
        self.mask_adversary: Any = mask_adversary
        self.mode = mode
        self.start_iter = start_iter
        self.warmup_iters = warmup_iters
        self.disc_lr_factor = disc_lr_factor
        self.sample_period = sample_period

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        gan = cfg.MODEL.GAN
        arguments = super().from_config(cfg)
        if gan.ENABLED and gan.MASK.ENABLED:
            # Built last, so that the generator's initial weights are the plain model's for the same seed.
            arguments["mask_adversary"] = MaskAdversary(cfg)
        arguments.update(
            mode=check_choice("MODEL.GAN.MODE", gan.MODE),
            start_iter=gan.START_ITER,
            warmup_iters=gan.WARMUP_ITERS,
            disc_lr_factor=gan.DISC_LR_FACTOR,
            sample_period=gan.VIS_PERIOD,
        )
        return arguments

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """As `GeneralizedRCNN.forward`; in training with the losses of both players.

        Raises:
            UserError: the model is trained in the alternating mode by a trainer that only knows `forward`.
        """
        if not self.training or self.mask_adversary is None:
            return super().forward(batched_inputs)
        if self.mode == "alternating":
            raise UserError(
                "MODEL.GAN.MODE alternating needs gan_plugin.AdversarialTrainer in place of DefaultTrainer; use it, "
                "or set MODEL.GAN.MODE to joint."
            )
        losses, samples = self.generator_forward(batched_inputs)
        losses.update(self.adversarial_losses(samples))
        verdict = self.discriminator_losses(samples)
        record_totals(losses, verdict)
        losses.update({name: scale_gradient(loss, self.disc_lr_factor) for name, loss in verdict.items()})
        return losses

    def generator_forward(self, batched_inputs: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], MaskSamples]:
        """The plain model's training losses, and the masks for the discriminator, from one forward pass."""
        losses = super().forward(batched_inputs)
        samples = losses.pop(SAMPLES_KEY)
        self._show(samples)
        return losses, samples

    def adversarial_losses(self, samples: MaskSamples) -> dict[str, torch.Tensor]:
        """What the generator pays for being found out, at this iteration's weight; the discriminator held constant."""
        return self.mask_adversary.generator_losses(samples, self.ramp())

    def discriminator_losses(self, samples: MaskSamples) -> dict[str, torch.Tensor]:
        """The discriminator's losses on detached samples; zero before the first adversarial iteration."""
        if self.ramp() == 0:
            return {"loss_disc_mask": self.mask_adversary.idle_loss()}
        return self.mask_adversary.discriminator_losses(samples)

    def ramp(self) -> float:
        """The factor in [0, 1] of the generator's adversarial terms at the current iteration of the event storage."""
        done = get_event_storage().iter - self.start_iter + 1
        if done <= 0:
            return 0.0
        return min(1.0, done / self.warmup_iters) if self.warmup_iters > 0 else 1.0

    def _show(self, samples: MaskSamples) -> None:
        storage = get_event_storage()
        if self.sample_period > 0 and (storage.iter + 1) % self.sample_period == 0 and len(samples):
            storage.put_image(SAMPLE_PICTURE, sample_grid(samples))


def record_totals(generator: dict[str, torch.Tensor], discriminator: dict[str, torch.Tensor]) -> None:
    """Put the sum of either player's losses into the event storage; the sum of both would mean nothing."""
    storage = get_event_storage()
    storage.put_scalar("loss_gen_total", sum(loss.item() for loss in generator.values()))
    storage.put_scalar("loss_disc_total", sum(loss.item() for loss in discriminator.values()))


def scale_gradient(loss: torch.Tensor, factor: float) -> torch.Tensor:
    """The same value with its gradient multiplied by `factor`."""
    return loss if factor == 1 else loss * factor + loss.detach() * (1 - factor)


def discriminator_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The discriminator's parameters, none for a plain model; all others are the generator's. DDP is looked through."""
    adversary = getattr(getattr(model, "module", model), "mask_adversary", None)
    return [] if adversary is None else list(adversary.parameters())
