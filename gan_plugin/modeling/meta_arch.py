"""Any model that draws masks as one player of a game: the generator, its adversary, and where each gradient goes."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache, partial, wraps
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.engine import TrainerBase
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError

from .adversary import build_adversaries
from .masks_of_some import Average, ask_teacher, require_mask_branch, split_masks
from .presenters import sample_grid
from .samples import MaskSampler, MaskSamples, RealFakePair
from .sources import SampleSource, find_source, theirs, watching, watching_pictures
from .stability import kept_within
from .unpaired import UnpairedLosses

DISC_LOSS_PREFIX = "loss_disc_"
SAMPLE_PICTURE = "gan/masks: real above fake"

Pairs = dict[str, RealFakePair]

_logger = logging.getLogger(__name__)

# whether the hooks of a trainer of Detectron2's kind are running: what they ask a model is no step of training
_in_hooks: ContextVar[bool] = ContextVar("in_hooks", default=False)


class AdversarialModel(nn.Module):
    """Stands before the class of a model, whose masks and boxes discriminators then judge; see `adversarial_class`.

    In training `forward` returns one flat dictionary of scalar losses. Names that begin with `loss_disc_` are the
    discriminator's, all others the generator's, and gradients are routed: calling backward on their sum gives each
    player the gradient of its own losses only. That is the joint mode, which any Detectron2 trainer can run. In the
    alternating mode a trainer calls `generator_forward`, `discriminator_losses` and `adversarial_losses` instead.

    A forward pass in training mode that is no step returns the losses of the model alone: one without gradients, one
    that a hook of any trainer of Detectron2 makes to look at validation losses, and one outside of a step if the
    trainer says what a step is.

    With `MODEL.GAN.MASK.BOX_ONLY: True` the losses of masks are those of the objects that have one, see `split_masks`,
    whether or not there is a game.

    With `MODEL.GAN.ENABLED: False` no discriminator exists and the model is its authors', bit for bit; all of the
    generator's parameters have the names that they gave them in either case.
    """

    # whether a step is going on, for a trainer that says so; None where any forward pass may be one
    within_step: bool | None = None
    # a block in which the model holds its moving average, from a trainer that keeps one
    average: Average | None = None

    def __init__(
        self,
        *args: Any,
        adversaries: nn.ModuleDict | None = None,
        sampler: MaskSampler | None = None,
        mode: str = "joint",
        start_iter: int = 0,
        warmup_iters: int = 0,
        disc_lr_factor: float = 1.0,
        sample_period: int = 0,
        reach: str = "all",
        box_only: bool = False,
        unpaired: UnpairedLosses | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            args, kwargs: those of the model; with a config among them, that config says all of the rest.
            adversaries: `Adversary` by name, "mask" and "box"; none for the plain model.
            sampler: how their samples are made.
            mode: "joint" or "alternating".
            start_iter: the first iteration with adversarial losses.
            warmup_iters: iterations over which the generator's adversarial terms then rise to full weight.
            disc_lr_factor: joint mode's factor on the discriminator's gradients.
            sample_period: iterations between pictures of real and fake masks; 0 for none.
            reach: where the masks' adversarial terms pull: at "all" of the generator, or at the mask "head".
            box_only: whether some objects have no mask, as the field `gt_has_mask` of the instances says.
            unpaired: what else teaches their masks.

        Raises:
            UserError: the model does not draw what an adversary wants to see, or a key has an unknown value.
        """
        super().__init__(*args, **kwargs)
        self.source: SampleSource | None = None
        cfg = _config_in(args, kwargs)
        if cfg is not None:
            gan = cfg.MODEL.GAN
            mode, disc_lr_factor = check_choice("MODEL.GAN.MODE", gan.MODE), gan.DISC_LR_FACTOR
            start_iter, warmup_iters, sample_period = gan.START_ITER, gan.WARMUP_ITERS, gan.VIS_PERIOD
            reach = gan.MASK.REACH
            box_only, unpaired = gan.MASK.BOX_ONLY, UnpairedLosses.from_config(cfg)
            # Built last, so that the generator's initial weights are the plain model's for the same seed.
            adversaries = self._build(cfg, unpaired)
        elif adversaries or unpaired:
            has_teacher = unpaired is not None and unpaired.teacher_weight > 0
            sampler = replace(sampler or MaskSampler(), box_only=box_only, has_teacher=has_teacher)
            self.source = find_source(self, sampler, {*(adversaries or ()), *(["mask"] if unpaired else [])})
        self.adversaries: Any = adversaries if adversaries is not None else nn.ModuleDict()
        self.mode = mode
        self.start_iter = start_iter
        self.warmup_iters = warmup_iters
        self.disc_lr_factor = disc_lr_factor
        self.sample_period = sample_period
        self.reach = check_choice("MODEL.GAN.MASK.REACH", reach)
        self._head_parameters()
        self.box_only = box_only
        if box_only:
            require_mask_branch(self)
        self.unpaired = unpaired
        self._calls = 0

    def __reduce__(self) -> Any:
        # the class has been made here, and has no name under which pickle would find it
        # and a copy is not what somebody averages
        return _empty_model, (theirs(self),), {**self.__dict__, "average": None}

    def _build(self, cfg: CfgNode, unpaired: UnpairedLosses | None) -> nn.ModuleDict:
        gan = cfg.MODEL.GAN
        players = {player.lower() for player in ("MASK", "BOX") if gan.ENABLED and gan[player].ENABLED}
        if unpaired:
            players.add("mask")
        if not players:
            return nn.ModuleDict()
        self.source = find_source(self, MaskSampler.from_config(cfg), players)
        _logger.info(f"Observed are {self.source} of {theirs(self).__name__}.")
        return build_adversaries(cfg, partial(self.source.levels, self))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own; in training with the losses of both players.

        Raises:
            UserError: the model is trained in the alternating mode by a trainer that only knows `forward`.
        """
        is_step = torch.is_grad_enabled() and self.within_step is not False and not _in_hooks.get()
        if not (self.training and is_step and self.source is not None):
            with self._some_masks():
                return super().forward(*args, **kwargs)
        if self.mode == "alternating" and len(self.adversaries):
            raise UserError(
                "MODEL.GAN.MODE alternating needs gan_plugin.AdversarialTrainer in place of DefaultTrainer; use it, "
                "or set MODEL.GAN.MODE to joint."
            )
        with _event_storage(self._calls):
            self._calls += 1
            losses, pairs = self.generator_forward(*args, **kwargs)
            if not len(self.adversaries):
                return losses
            pairs = self.asked_once(pairs)
            losses.update(self.adversarial_losses(pairs))
            verdict = self.discriminator_losses(pairs)
            record_totals(losses, verdict)
        losses.update({name: scale_gradient(loss, self.disc_lr_factor) for name, loss in verdict.items()})
        return losses

    def generator_forward(self, *args: Any, **kwargs: Any) -> tuple[dict[str, torch.Tensor], Pairs]:
        """The plain model's training losses, and what the discriminators will see, from one forward pass."""
        assert self.source is not None
        if self.unpaired is not None and self.unpaired.teacher_weight:
            self._ask_teacher(args[0] if args else kwargs["batched_inputs"])
        wants_features = any(adversary.presenter.wants_features for adversary in self.adversaries.values())
        with (
            watching(self.source, self, wants_features) as found,
            watching_pictures(self, self._wants_pictures()) as pictures,
        ):
            losses = super().forward(*args, **kwargs)
        # of the masks' logits only the losses of masks have a gradient, so none has to be known by its name
        samples: dict[str, Any] = found(torch.stack([loss.float() for loss in losses.values()]).sum())
        if pictures:
            samples["mask"] = replace(samples["mask"], pictures=pictures[0])
        self._show(samples)
        has_begun = self.ramp() > 0
        if self.unpaired is not None:
            judges = has_begun and "mask" in self.adversaries
            losses = losses | self.unpaired(samples["mask"], self._realness if judges else None)
        pairs = {
            name: adversary.pair(samples[name])
            if has_begun and self._heard(name)
            else RealFakePair.unseen(samples[name])
            for name, adversary in self.adversaries.items()
        }
        return losses, pairs

    def _heard(self, name: str) -> bool:
        """Whether the verdicts of a discriminator count; it rests otherwise."""
        filters = name == "mask" and self.unpaired is not None and self.unpaired.asks_discriminator
        return filters or self.adversaries[name].weight != 0

    def asked_once(self, pairs: Pairs) -> Pairs:
        """The same pairs for players who step at the same time: each discriminator is asked once for both if it can."""
        return {
            name: adversary.asked_once(pairs[name]) if self.ramp() > 0 and self._heard(name) else pairs[name]
            for name, adversary in self.adversaries.items()
        }

    def adversarial_losses(self, pairs: Pairs) -> dict[str, torch.Tensor]:
        """What the generator pays for being found out, at this iteration's weight; the discriminators held constant."""
        ramp = self.ramp()
        losses: dict[str, torch.Tensor] = {}
        for name, adversary in self.adversaries.items():
            pair = pairs[name]
            if not ramp:
                losses |= adversary.idle_generator_losses(pair.samples)
                continue
            found, head = adversary.generator_losses(pair, ramp), self._head_parameters()
            losses |= kept_within(found, pair.samples, head) if name == "mask" and head is not None else found
        return losses

    def _head_parameters(self) -> list[nn.Parameter] | None:
        """Where alone the masks' adversarial terms pull; None for everywhere."""
        if self.reach == "all" or self.source is None or "mask" not in self.adversaries:
            return None
        return [parameter for parameter in self.source.mask_head(self).parameters() if parameter.requires_grad]

    def discriminator_losses(self, pairs: Pairs) -> dict[str, torch.Tensor]:
        """The discriminators' losses on detached samples; zeros before the first adversarial iteration, and of those
        whose verdicts count nothing."""
        losses: dict[str, torch.Tensor] = {}
        for name, adversary in self.adversaries.items():
            if self.ramp() > 0 and self._heard(name):
                losses |= adversary.discriminator_losses(pairs[name])
            else:
                losses[f"{DISC_LOSS_PREFIX}{name}"] = adversary.idle_loss()
        return losses

    def ramp(self) -> float:
        """The factor in [0, 1] of the generator's adversarial terms at the current iteration of the event storage."""
        done = get_event_storage().iter - self.start_iter + 1
        if done <= 0:
            return 0.0
        return min(1.0, done / self.warmup_iters) if self.warmup_iters > 0 else 1.0

    def _ask_teacher(self, inputs: Any) -> None:
        if self.average is None:
            raise UserError(
                "MODEL.GAN.UNPAIRED.TEACHER_WEIGHT needs the moving average that gan_plugin.AdversarialTrainer keeps "
                "with MODEL.GAN.EMA.DECAY above 0; use both, or set the weight to 0."
            )
        ask_teacher(self, inputs, self.average)

    def _realness(self, samples: MaskSamples) -> torch.Tensor:
        """(R, M, M) in [0, 1]: how real the mask discriminator takes each pixel of samples to be, or each of them."""
        said, side = self.adversaries["mask"].realness(samples), samples.logits.shape[-1]
        maps = said[:, None] if said.dim() == 3 else said[:, None, None, None]
        return F.interpolate(maps, (side, side))[:, 0]

    def _wants_pictures(self) -> bool:
        presenters = [adversary.presenter for adversary in self.adversaries.values()]
        return any(getattr(presenter, "wants_pictures", False) for presenter in presenters) or (
            self.unpaired is not None and self.unpaired.wants_pictures
        )

    @contextmanager
    def _some_masks(self) -> Iterator[None]:
        """Within the block the losses of masks are of those objects alone that have one."""
        with ExitStack() as stack:
            if self.box_only and self.training:
                split_masks(stack, self.roi_heads)
            yield

    def _show(self, samples: dict[str, Any]) -> None:
        storage = get_event_storage()
        due = self.sample_period > 0 and (storage.iter + 1) % self.sample_period == 0
        if not due or "mask" not in samples:
            return
        masks = samples["mask"] if samples["mask"].has_mask is None else samples["mask"].at(samples["mask"].has_mask)
        if len(masks):
            storage.put_image(SAMPLE_PICTURE, sample_grid(masks))


@META_ARCH_REGISTRY.register()
class AdversarialRCNN(AdversarialModel, GeneralizedRCNN):
    """Detectron2's GeneralizedRCNN, or a subclass of it, with discriminators of its masks and boxes beside it."""


@cache
def adversarial_class(kind: type) -> type:
    """The class of the models of class `kind` that play the game: `(AdversarialRCNN, kind)`, or `(AdversarialModel,
    kind)` for what is no GeneralizedRCNN."""
    if issubclass(kind, AdversarialModel):
        return kind
    before = AdversarialRCNN if issubclass(kind, GeneralizedRCNN) else AdversarialModel
    return AdversarialRCNN if kind is GeneralizedRCNN else type(f"Adversarial{kind.__name__}", (before, kind), {})


def _empty_model(kind: type) -> Any:
    """A model of `adversarial_class(kind)` before its constructor, to which a copy gives its parts."""
    adversarial: Any = adversarial_class(kind)
    return adversarial.__new__(adversarial)


def obey_switch(kind: type) -> None:
    """Let the models of class `kind`, and of its subclasses, be built as `adversarial_class` if they are built from a
    config with `MODEL.GAN.ENABLED: True`, or with `MODEL.GAN.MASK.BOX_ONLY: True`. All others are built as ever."""
    plain: Any = kind.__new__
    if getattr(plain, "obeys_switch", False):
        return

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        cfg = _config_in(args, kwargs)
        gan = None if cfg is None else cfg.MODEL.GAN
        wanted = adversarial_class(cls) if gan is not None and (gan.ENABLED or gan.MASK.BOX_ONLY) else cls
        return plain(wanted) if plain is object.__new__ else plain(wanted, *args, **kwargs)

    new.obeys_switch = True  # type: ignore[attr-defined]
    kind.__new__ = staticmethod(new)  # type: ignore[method-assign, assignment]


def install_switch() -> None:
    """Let every meta-architecture of Detectron2's registry obey `MODEL.GAN.ENABLED`, whoever wrote it, whether it is
    registered before or after; and let a model know when it is a hook that asks. A second call changes nothing."""
    obey_switch(GeneralizedRCNN)
    registry: Any = META_ARCH_REGISTRY
    if "get" in vars(registry):
        return
    for phase in ("before_train", "before_step", "after_step", "after_train"):
        setattr(TrainerBase, phase, _as_hooks(getattr(TrainerBase, phase)))
    look_up = registry.get

    def get(name: str) -> Any:
        found = look_up(name)
        if isinstance(found, type) and issubclass(found, nn.Module):
            obey_switch(found)
        return found

    registry.get = get


def _as_hooks(phase: Callable[[TrainerBase], None]) -> Callable[[TrainerBase], None]:
    @wraps(phase)
    def run(trainer: TrainerBase) -> None:
        before = _in_hooks.set(True)
        try:
            phase(trainer)
        finally:
            _in_hooks.reset(before)

    return run


def _config_in(args: Any, kwargs: Any) -> Any:
    """The config with the plugin's keys that a model is built from; None if it is built from parts."""
    candidate = kwargs.get("cfg", args[0] if args else None)
    return candidate if isinstance(candidate, CfgNode) and "GAN" in candidate.get("MODEL", {}) else None


@contextmanager
def _event_storage(iteration: int) -> Iterator[None]:
    """Somewhere to put statistics, also in a loop that has no event storage; `iteration` is that of such a loop."""
    try:
        get_event_storage()
    except AssertionError:
        with EventStorage(iteration):
            yield
    else:
        yield


def record_totals(generator: dict[str, torch.Tensor], discriminator: dict[str, torch.Tensor]) -> None:
    """Put the sum of either player's losses into the event storage; the sum of both would mean nothing."""
    storage = get_event_storage()
    totals = [torch.stack([loss.detach() for loss in losses.values()]).sum() for losses in (generator, discriminator)]
    of_generator, of_discriminator = torch.stack(totals).tolist()
    storage.put_scalars(loss_gen_total=of_generator, loss_disc_total=of_discriminator)


def say_step(model: nn.Module, within: bool) -> None:
    """Tell an AdversarialModel, perhaps in DistributedDataParallel, whether its next forward pass is that of a step."""
    inner = getattr(model, "module", model)
    if isinstance(inner, AdversarialModel):
        inner.within_step = within


def lend_average(model: nn.Module, average: Average) -> None:
    """Give an AdversarialModel, perhaps in DistributedDataParallel, a block in which it holds its moving average."""
    inner = getattr(model, "module", model)
    if isinstance(inner, AdversarialModel):
        inner.average = average


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
