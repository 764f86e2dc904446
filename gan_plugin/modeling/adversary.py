"""One discriminator with its objective: the losses that it adds for either player, and how config keys describe it."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.func import functional_call

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError

from .discriminators import build_discriminator, discriminator_class, presenter_class
from .duel import HARD_LABELS, Duel
from .objectives import AdversarialObjective, Verdicts, build_objective
from .presenters import DiscriminatorAugment, Levels, Presenter
from .samples import Answer, RealFakePair, Samples, reconstruction_loss
from .stability import AccuracyGate, GradientShare, LabelNoise, Regularizer, gradients_at, with_gradients
from .unpaired import MaskMemory

_SAFE = GradientShare()


class Adversary(nn.Module):
    """A discriminator and what both players minimise because of it.

    `generator_losses` gives no gradient to the discriminator and `discriminator_losses` none to the generator, whoever
    calls backward on them; so a stock trainer may sum everything. Losses and statistics carry the adversary's name.
    """

    usual_pull: torch.Tensor | None

    def __init__(
        self,
        *,
        name: str,
        discriminator: nn.Module,
        objective: AdversarialObjective,
        presenter: Presenter,
        labels: LabelNoise | None = None,
        weight: float = 1.0,
        augment: DiscriminatorAugment | None = None,
        regularizer: Regularizer | None = None,
        balance: GradientShare | None = _SAFE,
        gate: AccuracyGate | None = None,
        lockstep: bool = False,
    ) -> None:
        """
        Args:
            name: "mask" or "box".
            discriminator: (R, C, S, S), and (R,) classes if its `conditional` is set -> verdicts.
            objective: the adversarial losses.
            presenter: makes the discriminator's input from samples.
            labels: draws the discriminator's targets.
            weight: factor of the generator's adversarial loss; with a `balance` only its ratio to other factors counts.
                With 0 the discriminator is neither asked nor trained, unless somebody else listens to it.
            augment: acts on every input of the discriminator.
            regularizer: penalties on the discriminator.
            balance: holds the generator's terms to a share of its own loss; None for the weights as they are, which
                may be too much for a model that has learnt already.
            gate: lets the discriminator rest while it is far ahead.
            lockstep: whether the discriminator is run without samples too, because its layers wait for other processes.
        """
        super().__init__()
        self.name = name
        self.discriminator = discriminator
        self.presenter = presenter
        self.duel = Duel(objective, labels or HARD_LABELS)
        self.weight = weight
        self.augment = augment or DiscriminatorAugment()
        self.regularizer = regularizer or Regularizer()
        self.balance = balance
        self.gate = gate
        self.lockstep = lockstep
        # the running mean that `GradientShare` takes, for an adversary that keeps one
        self.register_buffer("usual_pull", None)

    @property
    def objective(self) -> AdversarialObjective:
        """What both players minimise."""
        return self.duel.objective

    def present(self, samples: Samples) -> RealFakePair:
        """What the discriminator will see, computed once for both players."""
        return self.presenter(samples)

    def pair(self, samples: Samples) -> RealFakePair:
        """What both players are to be paid for: what the discriminator sees of the samples, each beside a truth."""
        return self.present(samples)

    def asked_once(self, pair: RealFakePair) -> RealFakePair:
        """The same pair, with the answer to both players if they look at the same weights and one pass can serve both.

        It can in a zero-sum game on the same inputs: one player's gradient is the other's with its sign turned.
        """
        is_plain = self.augment.is_idle and self.gate is None and not self.regularizer.is_on
        # in lockstep a process without samples could not know how often the others ask
        if not (self.objective.zero_sum and self.weight and is_plain and len(pair)) or self.lockstep:
            return pair
        fake = pair.fake.detach().requires_grad_(True)
        weights = [parameter for parameter in self.discriminator.parameters() if parameter.requires_grad]
        on_real = self.judge(pair.real, pair)
        loss = self.objective.generator_loss(self.judge(fake, pair), on_real)
        at_fake, *at_weights = gradients_at(loss, [fake, *weights])
        return replace(pair, answer=Answer(loss.detach(), at_fake, weights, at_weights))

    def idle_generator_losses(self, samples: Samples) -> dict[str, torch.Tensor]:
        """The generator's losses while the game has not begun: zeros that still reach every sample."""
        return {f"loss_adv_{self.name}": samples.zero()}

    def generator_losses(self, pair: RealFakePair, ramp: float = 1.0) -> dict[str, torch.Tensor]:
        """`loss_adv_<name>`, a scalar times `ramp` in [0, 1]; without samples a zero that still reaches every one.

        With a balance `gan/<name>/balance` records the factor of all weights.
        """
        if self.balance is None:
            return {name: term * (weight * ramp) for name, (term, weight) in self._generator_terms(pair).items()}
        leaf = pair.fake.detach().requires_grad_(True)
        terms = self._generator_terms(replace(pair, fake=leaf))
        weighted = {name: term * weight for name, (term, weight) in terms.items()}
        losses, factor = self.balance(weighted, pair.samples, ramp, (pair.fake, leaf), self.usual_pull)
        get_event_storage().put_scalar(f"gan/{self.name}/balance", factor.item())
        return losses

    def _generator_terms(self, pair: RealFakePair) -> dict[str, tuple[torch.Tensor, float]]:
        """The generator's losses, each with its weight; no verdict is asked for that is known or counts nothing."""
        if pair.answer is not None:
            known = with_gradients(pair.answer.loss, [pair.answer.at_fake], [pair.fake])
            return {f"loss_adv_{self.name}": (known, self.weight)}
        if not self.weight:
            return {f"loss_adv_{self.name}": (pair.samples.zero(), 0.0)}
        real, fake = self._augmented(pair.real, pair.fake)
        loss = pair.samples.zero() if not len(pair) else None
        if loss is None or self.lockstep:
            on_real = self.duel.beside(partial(self._judge_as_constant, pair=pair), real)
            on_fake = self._judge_as_constant(fake, pair)
            loss = self.objective.generator_loss(on_fake, on_real) if loss is None else loss + _nothing(on_fake)
        return {f"loss_adv_{self.name}": (loss, self.weight)}

    def discriminator_losses(self, pair: RealFakePair) -> dict[str, torch.Tensor]:
        """`loss_disc_<name>`, and `loss_disc_<name>_reg` in the iterations of a penalty; scalars.

        Real and fake pass one after the other, so BatchNorm sees them separately. Records the probabilities D(real),
        D(fake) and the share of right verdicts. Without samples the losses are zeros that still reach every parameter,
        so that no process of a distributed run waits for a gradient.
        """
        if (answer := pair.answer) is not None:
            turned = [None if gradient is None else -gradient for gradient in answer.at_weights]
            return {f"loss_disc_{self.name}": with_gradients(-answer.loss, turned, answer.weights)}
        real, fake = self._augmented(pair.real, pair.fake.detach())
        accuracy = 0.0
        if len(pair):
            on_real, on_fake = self.judge(real, pair), self.judge(fake, pair)
            accuracy = self.duel.record(self.name, on_real, on_fake)
            loss = self.duel.discriminator_loss(on_real, on_fake)
        else:
            loss = self.idle_loss()
            if self.lockstep:
                loss = loss + _nothing(self.judge(real, pair)) + _nothing(self.judge(fake, pair))
        is_open = self.gate is None or self.gate.update(accuracy, len(pair))
        losses = {f"loss_disc_{self.name}": loss if is_open else loss * 0}
        if self.regularizer.is_due(get_event_storage().iter):
            losses[f"loss_disc_{self.name}_reg"] = (
                self.regularizer(lambda inputs: self.judge(inputs, pair), real, fake)
                if len(pair) and is_open
                else self.idle_loss()
            )
        return losses

    def idle_loss(self) -> torch.Tensor:
        """A zero that depends on every parameter of the discriminator."""
        return torch.stack([parameter.sum() * 0 for parameter in self.parameters()]).sum()

    def _augmented(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # A distance between the features of a pair means something only if both were shifted alike.
        if self.objective.judges == "features":
            return self.augment.alike(real, fake)
        return self.augment(real), self.augment(fake)

    def judge(self, inputs: torch.Tensor, pair: RealFakePair) -> Verdicts:
        """The discriminator's verdicts on `inputs`, the real or the fake side of `pair` or something of their shape."""
        return _in_single_precision(self.discriminator(*self._arguments(inputs, pair)))

    @torch.no_grad()
    def realness(self, samples: Samples) -> torch.Tensor:
        """(R,) or, of patches, (R, H, W): how real the discriminator takes samples to be, in [0, 1]."""
        pair = self.present(samples)
        on_real, on_fake = (self._judge_as_constant(inputs, pair) for inputs in (pair.real, pair.fake))
        found = self.objective.probabilities(on_real, on_fake)
        assert found is not None
        return found[1]

    def _judge_as_constant(self, inputs: torch.Tensor, pair: RealFakePair) -> Verdicts:
        # Detached weights and copied buffers: the verdict's gradient reaches the inputs alone, and running statistics
        # see each fake once, in the discriminator's own pass.
        state = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        state |= {name: buffer.clone() for name, buffer in self.discriminator.named_buffers()}
        return _in_single_precision(functional_call(self.discriminator, state, self._arguments(inputs, pair)))

    def _arguments(self, inputs: torch.Tensor, pair: RealFakePair) -> tuple[torch.Tensor, ...]:
        return (inputs, pair.samples.classes) if getattr(self.discriminator, "conditional", False) else (inputs,)


class MaskAdversary(Adversary):
    """A discriminator of masks; the generator's matched masks also pay for their distance to the truth."""

    def __init__(
        self,
        *,
        rec_weight: float = 100.0,
        rec_loss: str = "mae",
        name: str = "mask",
        memory: MaskMemory | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            rec_weight: factor of the error between matched masks (lambda in the thesis), 0 for none; with a `balance`
                its ratio to `weight` counts.
            rec_loss: that error, see `reconstruction_loss`.
            memory: what the real side is drawn from where some objects have no mask; None if all have one.
            name, kwargs: as for Adversary.
        """
        super().__init__(name=name, **kwargs)
        self.rec_weight = rec_weight
        self.rec_loss = rec_loss
        self.memory = memory
        if memory is not None:
            self.usual_pull = torch.tensor(0.0)

    def pair(self, samples: Any) -> RealFakePair:
        pair = super().pair(samples)
        # what the discriminator is asked outside of training is to leave no trace
        return self.memory(pair, self.present) if self.memory is not None and self.training else pair

    def idle_generator_losses(self, samples: Any) -> dict[str, torch.Tensor]:
        losses = super().idle_generator_losses(samples)
        return losses | ({"loss_rec_mask": samples.zero()} if self.rec_weight else {})

    def _generator_terms(self, pair: RealFakePair) -> dict[str, tuple[torch.Tensor, float]]:
        """As Adversary, and `loss_rec_mask` unless its weight is 0."""
        terms = super()._generator_terms(pair)
        if self.rec_weight:
            terms["loss_rec_mask"] = reconstruction_loss(pair.samples, self.rec_loss), self.rec_weight
        return terms


def adversaries(**by_name: Adversary | None) -> nn.ModuleDict:
    """The adversaries that a model takes, for a LazyConfig; None stands for one that is switched off.

    Args:
        by_name: "mask" and "box".
    """
    return nn.ModuleDict({name: adversary for name, adversary in by_name.items() if adversary is not None})


def _in_single_precision(verdicts: Verdicts) -> Verdicts:
    """Logits in float32: a loss in float16 could not hold the scaled gradient that it starts from."""
    # a feature distance sums in single precision by itself
    return verdicts.float() if isinstance(verdicts, torch.Tensor) else verdicts


def _nothing(verdicts: Verdicts) -> torch.Tensor:
    """A zero that depends on the verdicts on no samples."""
    parts = verdicts if isinstance(verdicts, tuple) else (verdicts,)
    return torch.stack([part.sum() for part in parts]).sum() * 0


def build_adversaries(cfg: CfgNode, levels: Levels) -> nn.ModuleDict:
    """The adversaries that `cfg.MODEL.GAN` switches on, by name: "mask" and "box".

    Args:
        cfg: with the plugin's keys.
        levels: gives channels and stride of the features that samples bring; asked if a discriminator looks at them.

    Raises:
        UserError: a key has an unknown value, or two of them exclude each other.
    """
    gan = cfg.MODEL.GAN
    adversaries = nn.ModuleDict()
    if gan.ENABLED and gan.MASK.ENABLED:
        adversaries["mask"] = _compiled(
            MaskAdversary(
                rec_weight=gan.MASK.REC_WEIGHT,
                rec_loss=check_choice("MODEL.GAN.MASK.REC_LOSS", gan.MASK.REC_LOSS),
                **_common(cfg, "MASK", levels),
            ),
            cfg,
        )
    if gan.ENABLED and gan.BOX.ENABLED:
        adversaries["box"] = _compiled(Adversary(name="box", **_common(cfg, "BOX", levels)), cfg)
    return adversaries


def _common(cfg: CfgNode, player: str, levels: Levels) -> dict[str, Any]:
    gan, node = cfg.MODEL.GAN, cfg.MODEL.GAN[player]
    objective = build_objective(node.OBJECTIVE, f"MODEL.GAN.{player}.OBJECTIVE")
    regularizer = Regularizer(gan.REG.R1_GAMMA, gan.REG.GP_WEIGHT, gan.REG.EVERY)
    if objective.judges == "features" and (regularizer.is_due(0) or gan.GATE_ACCURACY):
        raise UserError(
            f"MODEL.GAN.{player}.OBJECTIVE {node.OBJECTIVE} gives no verdicts, which MODEL.GAN.REG.R1_GAMMA, GP_WEIGHT "
            "and MODEL.GAN.GATE_ACCURACY need; set those to 0."
        )
    if regularizer.is_due(0) and node.NORM == "SyncBN":
        raise UserError(
            f"MODEL.GAN.{player}.NORM SyncBN cannot be differentiated twice, as MODEL.GAN.REG.R1_GAMMA and GP_WEIGHT "
            "need it; set it to GN, or those to 0."
        )
    if gan.COMPILE and regularizer.is_due(0):
        raise UserError(
            "MODEL.GAN.COMPILE makes a discriminator that is differentiated once, but MODEL.GAN.REG.R1_GAMMA and "
            "GP_WEIGHT do it twice; set it to False, or those to 0."
        )
    if player == "MASK" and node.BOX_ONLY:
        _check_box_only(cfg)
    presenter, shape = presenter_class(discriminator_class(cfg, player), player).from_config(cfg, levels)
    memory = MaskMemory(node.MEMORY, shape.channels, shape.height) if player == "MASK" and node.BOX_ONLY else None
    return {
        **({"memory": memory} if memory else {}),
        "objective": objective,
        "discriminator": build_discriminator(cfg, player, shape),
        "presenter": presenter,
        "labels": LabelNoise(tuple(gan.LABELS.REAL), tuple(gan.LABELS.FAKE), gan.LABELS.FLIP_PROB),
        "weight": node.WEIGHT,
        "augment": DiscriminatorAugment(gan.DIFFAUG, node.INSTANCE_NOISE, presenter.background),
        "regularizer": regularizer,
        "balance": GradientShare(gan.BALANCE.SHARE, gan.BALANCE.MAX_FACTOR) if gan.BALANCE.SHARE else None,
        "gate": AccuracyGate(gan.GATE_ACCURACY) if gan.GATE_ACCURACY else None,
        "lockstep": node.NORM == "SyncBN" and comm.get_world_size() > 1,
    }


def _check_box_only(cfg: CfgNode) -> None:
    """Refuse what cannot be judged beside a truth of another object."""
    node = cfg.MODEL.GAN.MASK
    if not presenter_class(discriminator_class(cfg, "MASK"), "MASK").lasts:
        raise UserError(
            f"MODEL.GAN.MASK.DISCRIMINATOR {node.DISCRIMINATOR} sees features, which change, while a memory of them "
            "would not, as MODEL.GAN.MASK.BOX_ONLY needs one; set it to MaskedImageDiscriminator."
        )
    if build_objective(node.OBJECTIVE).judges == "features":
        raise UserError(
            f"MODEL.GAN.MASK.OBJECTIVE {node.OBJECTIVE} compares each mask with its own truth, which "
            "MODEL.GAN.MASK.BOX_ONLY says that some have not; set it to Hinge or another one with verdicts."
        )


def _compiled(adversary: Adversary, cfg: CfgNode) -> Adversary:
    if cfg.MODEL.GAN.COMPILE:
        # In place, so that the names of the weights stay; the number of RoIs changes from step to step.
        adversary.discriminator.compile(dynamic=True)
    return adversary
