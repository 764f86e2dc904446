"""Mask R-CNN as one player of a game: the generator, its adversary, and where each gradient goes."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.utils.events import get_event_storage
from torch import nn

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError

from .build_adversary import build_adversaries
from .sample_grid import sample_grid
from .samples import RealFakePair, take_samples

DISC_LOSS_PREFIX = "loss_disc_"
SAMPLE_PICTURE = "gan/masks: real above fake"

Pairs = dict[str, RealFakePair]


@META_ARCH_REGISTRY.register()
class AdversarialRCNN(GeneralizedRCNN):
    """Detectron2's GeneralizedRCNN with discriminators of its masks and boxes beside it.

    In training `forward` returns one flat dictionary of scalar losses. Names that begin with `loss_disc_` are the
    discriminator's, all others the generator's, and gradients are routed: calling backward on their sum gives each
    player the gradient of its own losses only. That is the joint mode, which any Detectron2 trainer can run. In the
    alternating mode a trainer calls `generator_forward`, `discriminator_losses` and `adversarial_losses` instead.

    With `MODEL.GAN.ENABLED: False` no discriminator exists and the model is GeneralizedRCNN, bit for bit; all of the
    generator's parameters have GeneralizedRCNN's names in either case.
    """

    # what a mask head that emits samples looks for
    takes_samples = True

    @configurable
    def __init__(
        self,
        *,
        adversaries: nn.ModuleDict | None = None,
        mode: str = "joint",
        start_iter: int = 0,
        warmup_iters: int = 0,
        disc_lr_factor: float = 1.0,
        sample_period: int = 0,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            adversaries: `Adversary` by name, "mask" and "box"; none for the plain model.
            mode: "joint" or "alternating".
            start_iter: the first iteration with adversarial losses.
            warmup_iters: iterations over which the generator's adversarial terms then rise to full weight.
            disc_lr_factor: joint mode's factor on the discriminator's gradients.
            sample_period: iterations between pictures of real and fake masks; 0 for none.
            kwargs: those of GeneralizedRCNN.

        Raises:
            UserError: the heads do not give what an adversary wants to see.
        """
        super().__init__(**kwargs)
        self.adversaries: Any = adversaries if adversaries is not None else nn.ModuleDict()
        self._check_heads()
        self.mode = mode
        self.start_iter = start_iter
        self.warmup_iters = warmup_iters
        self.disc_lr_factor = disc_lr_factor
        self.sample_period = sample_period

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        gan = cfg.MODEL.GAN
        arguments = super().from_config(cfg)
        # Built last, so that the generator's initial weights are the plain model's for the same seed.
        arguments["adversaries"] = build_adversaries(cfg, arguments["backbone"].output_shape())
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
        if not self.training or not len(self.adversaries):
            return super().forward(batched_inputs)
        if self.mode == "alternating":
            raise UserError(
                "MODEL.GAN.MODE alternating needs gan_plugin.AdversarialTrainer in place of DefaultTrainer; use it, "
                "or set MODEL.GAN.MODE to joint."
            )
        losses, pairs = self.generator_forward(batched_inputs)
        losses.update(self.adversarial_losses(pairs))
        verdict = self.discriminator_losses(pairs)
        record_totals(losses, verdict)
        losses.update({name: scale_gradient(loss, self.disc_lr_factor) for name, loss in verdict.items()})
        return losses

    def generator_forward(self, batched_inputs: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], Pairs]:
        """The plain model's training losses, and what the discriminators will see, from one forward pass."""
        losses = super().forward(batched_inputs)
        samples = take_samples(losses)
        self._show(samples)
        has_begun = self.ramp() > 0
        pairs = {
            name: adversary.present(samples[name]) if has_begun else RealFakePair.unseen(samples[name])
            for name, adversary in self.adversaries.items()
        }
        return losses, pairs

    def adversarial_losses(self, pairs: Pairs) -> dict[str, torch.Tensor]:
        """What the generator pays for being found out, at this iteration's weight; the discriminators held constant."""
        ramp = self.ramp()
        losses: dict[str, torch.Tensor] = {}
        for name, adversary in self.adversaries.items():
            pair = pairs[name]
            losses |= adversary.generator_losses(pair, ramp) if ramp else adversary.idle_generator_losses(pair.samples)
        return losses

    def discriminator_losses(self, pairs: Pairs) -> dict[str, torch.Tensor]:
        """The discriminators' losses on detached samples; zeros before the first adversarial iteration."""
        if self.ramp() == 0:
            return {f"{DISC_LOSS_PREFIX}{name}": adversary.idle_loss() for name, adversary in self.adversaries.items()}
        losses: dict[str, torch.Tensor] = {}
        for name, adversary in self.adversaries.items():
            losses |= adversary.discriminator_losses(pairs[name])
        return losses

    def ramp(self) -> float:
        """The factor in [0, 1] of the generator's adversarial terms at the current iteration of the event storage."""
        done = get_event_storage().iter - self.start_iter + 1
        if done <= 0:
            return 0.0
        return min(1.0, done / self.warmup_iters) if self.warmup_iters > 0 else 1.0

    def _show(self, samples: dict[str, Any]) -> None:
        storage = get_event_storage()
        due = self.sample_period > 0 and (storage.iter + 1) % self.sample_period == 0
        if due and len(samples.get("mask", ())):
            storage.put_image(SAMPLE_PICTURE, sample_grid(samples["mask"]))

    def _check_heads(self) -> None:
        heads = self.roi_heads
        if "mask" in self.adversaries and not getattr(getattr(heads, "mask_head", None), "emits_samples", False):
            raise UserError(
                "MODEL.GAN.ENABLED needs a mask head that hands out its masks: set MODEL.MASK_ON to True and "
                "MODEL.ROI_MASK_HEAD.NAME to AdversarialMaskHead or AdversarialPointRendMaskHead."
            )
        if "box" in self.adversaries and not getattr(heads, "emits_box_samples", False):
            raise UserError(
                f"MODEL.GAN.BOX.ENABLED needs RoI heads that hand out their boxes, which {type(heads).__name__} does "
                "not: set MODEL.ROI_HEADS.NAME to AdversarialROIHeads or AdversarialCascadeROIHeads."
            )
        wanted = any(adversary.presenter.wants_features for adversary in self.adversaries.values())
        if wanted and not getattr(heads, "hands_out_features", False):
            raise UserError(
                f"MODEL.GAN.MASK.DISCRIMINATOR looks at RoI features, which {type(heads).__name__} does not hand out: "
                "set MODEL.ROI_HEADS.NAME to AdversarialROIHeads or AdversarialCascadeROIHeads."
            )


def record_totals(generator: dict[str, torch.Tensor], discriminator: dict[str, torch.Tensor]) -> None:
    """Put the sum of either player's losses into the event storage; the sum of both would mean nothing."""
    storage = get_event_storage()
    totals = [torch.stack([loss.detach() for loss in losses.values()]).sum() for losses in (generator, discriminator)]
    of_generator, of_discriminator = torch.stack(totals).tolist()
    storage.put_scalars(loss_gen_total=of_generator, loss_disc_total=of_discriminator)


def scale_gradient(loss: torch.Tensor, factor: float) -> torch.Tensor:
    """The same value with its gradient multiplied by `factor`."""
    return loss if factor == 1 else loss * factor + loss.detach() * (1 - factor)


def discriminators_of(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of each discriminator, none for a plain model. DistributedDataParallel is looked through."""
    adversaries = getattr(getattr(model, "module", model), "adversaries", None)
    return [] if adversaries is None else [list(adversary.parameters()) for adversary in adversaries.values()]


def discriminator_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all discriminators; all others are the generator's."""
    return [parameter for parameters in discriminators_of(model) for parameter in parameters]


def generator_parameters(model: nn.Module) -> list[nn.Parameter]:
    """All parameters but the discriminators'."""
    of_discriminators = {id(parameter) for parameter in discriminator_parameters(model)}
    return [parameter for parameter in model.parameters() if id(parameter) not in of_discriminators]
