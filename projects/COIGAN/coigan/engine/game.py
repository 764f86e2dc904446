"""COIGAN's game: a generator that paints defects, a judge of the defects, and one of the whole image (thesis 4.4)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import torch
from detectron2.utils.events import get_event_storage
from torch import nn
from yacs.config import CfgNode

from coigan.batch import Batch, blend, collate, cut_defects
from coigan.engine.losses import GeneratorLosses, Judge, LossOptions
from coigan.losses import PathLength, build_feature_network, masked_patch_loss
from coigan.modeling.build import build_discriminator, build_generator, build_optimizer, choose_device, judge_pair
from coigan.visualization.grid import comparison_grid, detail_columns
from gan_plugin.engine.image_game import ImageGame, Losses, Phase
from gan_plugin.errors import UserError
from gan_plugin.layers.double_backward import CheapDoubleBackward
from gan_plugin.modeling.duel import Duel
from gan_plugin.modeling.objectives import build_objective
from gan_plugin.modeling.presenters import DiscriminatorAugment
from gan_plugin.modeling.stability import AdaptiveAugment, r1

# the discriminators' names in the log
_IMAGE, _REFERENCE = "image", "reference"


class Turn:
    """What the phases of one iteration share: the batch, and the images painted for it, at most once."""

    def __init__(self, game: "InpaintingGame", batch: Batch, iteration: int) -> None:
        self.batch, self.iteration, self._game = batch, iteration, game

    @cached_property
    def fake(self) -> torch.Tensor:
        """Images (N, 3, H, W) without a gradient: for the discriminators."""
        with torch.no_grad():
            return self._game.paint(self.batch)


class InpaintingGame(ImageGame):
    """The generator, one or two discriminators, and all losses between them."""

    def __init__(
        self, cfg: CfgNode, generator: nn.Module, discriminator: nn.Module, ref_discriminator: nn.Module | None
    ) -> None:
        """
        Args:
            cfg: see `coigan.config`.
            generator, discriminator, ref_discriminator: the networks, on their device; the last judges whole images.

        Raises:
            UserError: a value of the config is not usable.
        """
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.ref_discriminator = ref_discriminator
        self.path_length = PathLength().to(next(generator.parameters()).device)
        self._solver, self._margin = cfg.SOLVER, cfg.MODEL.GENERATOR.BLEND_MARGIN
        self._losses = LossOptions.from_config(cfg)
        objective = build_objective(cfg.LOSS.OBJECTIVE, "LOSS.OBJECTIVE")
        self._duel = Duel(objective)
        if objective.judges != "logits":
            raise UserError(f"LOSS.OBJECTIVE {cfg.LOSS.OBJECTIVE} needs features; choose one of logits, such as Hinge.")
        self._augments = self._build_augments(cfg.LOSS)
        features = None
        if self._losses.needs_features():
            node = cfg.LOSS.FEATURES
            features = build_feature_network(node.WEIGHTS, node.SHA256, node.NETWORK).to(self.device)
        # not a submodule, or every checkpoint would hold its weights
        self._generator_losses = (GeneratorLosses(self._losses, features),)
        self.features_title = features.title if features else "none"
        self._preview: Batch | None = None

    def _build_augments(self, node: CfgNode) -> Mapping[str, Callable[[torch.Tensor], torch.Tensor]]:
        """What each discriminator's samples go through; with ADA a part of the game's state."""
        if not node.ADA.TARGET:
            augment = DiscriminatorAugment(node.DIFFAUG)
            return {_IMAGE: augment, _REFERENCE: augment}
        players = (_IMAGE, _REFERENCE) if self.ref_discriminator is not None else (_IMAGE,)
        self.adaptive = nn.ModuleDict(
            {name: AdaptiveAugment(node.DIFFAUG, node.ADA.TARGET, node.ADA.IMAGES) for name in players}
        ).to(self.device)
        return dict(self.adaptive.items())

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.generator.parameters()).device

    def collate(self, items: list[Mapping[str, torch.Tensor]]) -> Batch:
        return collate(items, self.device)

    def begin(self, batch: Any, iteration: int, keep_graph: bool) -> Turn:
        return Turn(self, batch, iteration)

    def paint(self, batch: Batch, inputs: torch.Tensor | None = None) -> torch.Tensor:
        """The generator's images (N, 3, H, W) for `batch`, float32, with the background kept if the config says so."""
        images = self.generator(batch.inputs if inputs is None else inputs).float()
        return blend(images, batch.base, batch.masks, self._margin)

    def phases(self) -> Sequence[Phase]:
        solver, losses = self._solver, self._losses
        turns = Turns(solver.DISC_STEPS, solver.GEN_STEPS)
        phase = partial(TurnPhase, turns=turns)
        rate = solver.DISC_LR or solver.LR
        phases: list[Phase] = []
        lazy: list[Phase] = []
        judges = [("discriminator", self.discriminator, self._disc_defect, self._r1_defect, 1)]
        if self.ref_discriminator is not None:
            delay = solver.REF_DISC_STEPS_DELAY
            judges.append(("ref_discriminator", self.ref_discriminator, self._disc_ref, self._r1_ref, delay))
        for name, network, loss, penalty, delay in judges:
            optimizer = build_optimizer(solver, network.parameters(), rate)
            phases.append(phase(name, [network], optimizer, loss, every=delay, player=DISCRIMINATOR))
            if losses.weights["R1"].on:
                every = losses.node.R1.EVERY * delay
                options = {"every": every, "gain": float(losses.node.R1.EVERY), "player": DISCRIMINATOR}
                lazy.append(phase(f"{name}_r1", [network], optimizer, penalty, **options))
        optimizer = build_optimizer(solver, self.generator.parameters(), solver.LR)
        generator = phase("generator", [self.generator], optimizer, self._generator, clip_norm=solver.CLIP_NORM)
        phases += [*lazy, generator]
        if losses.weights["PATH_LENGTH"].on:
            every = losses.node.PATH_LENGTH.EVERY
            phases.append(phase("path_length", [self.generator], optimizer, self._path, every=every, gain=float(every)))
        return phases

    def _augmented(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return self._augments[_REFERENCE if network is self.ref_discriminator else _IMAGE](images)

    def _judge(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        # float32, as in `judge_pair`
        return network(self._augmented(network, images)).float()

    def _judge_pair(
        self, network: nn.Module, real: torch.Tensor, fake: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return judge_pair(network, self._augmented(network, real), self._augmented(network, fake))

    def _disc_defect(self, turn: Turn) -> Losses:
        batch = turn.batch
        canvases = cut_defects(turn.fake, batch.masks)
        real, fake = self._judge_pair(self.discriminator, batch.defects, canvases)
        self._duel.record(_IMAGE, real, fake)
        self._adapt(_IMAGE, real)
        _note_diversity(canvases, batch.defects)
        return {
            "loss_disc_defect": self._losses.at("DISCRIMINATOR", turn.iteration)
            * self._duel.discriminator_loss(real, fake)
        }

    def _disc_ref(self, turn: Turn) -> Losses:
        judge, batch = self._reference(turn)
        real, fake = self._judge_pair(judge, batch.reference, turn.fake)
        self._duel.record(_REFERENCE, real, fake)
        self._adapt(_REFERENCE, real)
        masked = self._losses.node.MASKED_PATCHES
        loss = masked_patch_loss(real, fake, batch.masks) if masked else self._duel.discriminator_loss(real, fake)
        return {"loss_disc_ref": self._losses.at("REF_DISCRIMINATOR", turn.iteration) * loss}

    def _r1_defect(self, turn: Turn) -> Losses:
        return {"loss_disc_r1": self._slope(turn, self.discriminator, turn.batch.defects)}

    def _r1_ref(self, turn: Turn) -> Losses:
        judge, batch = self._reference(turn)
        return {"loss_disc_ref_r1": self._slope(turn, judge, batch.reference)}

    def _slope(self, turn: Turn, judge: nn.Module, real: torch.Tensor) -> torch.Tensor:
        # The judge learns augmented images, so their slope is held (as in the code of arXiv 2006.06676).
        # Half precision would lose the gradient of a gradient.
        with torch.autocast(real.device.type, enabled=False):
            return self._losses.at("R1", turn.iteration) * r1(partial(self._judge, judge), real)

    def _generator(self, turn: Turn) -> Losses:
        batch, images = turn.batch, self.paint(turn.batch)
        iteration = turn.iteration
        canvases = cut_defects(images, batch.masks)
        losses: Losses = {}
        if weight := self._losses.at("ADVERSARIAL", iteration):
            losses["loss_adv_defect"] = weight * self._fooling(self.discriminator, canvases, batch.defects)
        if self.ref_discriminator is not None and (weight := self._losses.at("REF_ADVERSARIAL", iteration)):
            critic, batch = self._reference(turn)
            losses["loss_adv_ref"] = weight * self._fooling(critic, images, batch.reference)
        judge = cast(Judge | None, self.ref_discriminator)
        losses.update(self._generator_losses[0](images, batch, iteration, judge))
        if not losses:
            raise UserError("All of the generator's losses have weight 0; give one of LOSS a WEIGHT.")
        return losses

    def _fooling(self, judge: nn.Module, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return self._duel.generator_loss(partial(self._judge, judge), fake, real)

    def _path(self, turn: Turn) -> Losses:
        inputs = turn.batch.inputs.detach().requires_grad_(True)
        with torch.autocast(inputs.device.type, enabled=False):
            with CheapDoubleBackward():
                # before the blend, which has no slope where it keeps the base image
                images = self.generator(inputs).float()
            penalty, mean = self.path_length(images, inputs)
        get_event_storage().put_scalar("gan/path_length", mean.item())
        return {"loss_path_length": self._losses.at("PATH_LENGTH", turn.iteration) * penalty}

    def _reference(self, turn: Turn) -> tuple[nn.Module, Any]:
        if self.ref_discriminator is None or turn.batch.reference is None:
            raise UserError("The reference discriminator needs reference images; prepare the data with them.")
        return self.ref_discriminator, turn.batch

    def _adapt(self, judge: str, real: torch.Tensor) -> None:
        """Let the probability of augmentation follow the verdicts on real samples, with ADA."""
        augment = self._augments[judge]
        if isinstance(augment, AdaptiveAugment):
            augment.observe(real)
            get_event_storage().put_scalar(f"gan/{judge}/augment_p", augment.probability.item())

    def set_preview(self, items: list[Mapping[str, torch.Tensor]]) -> None:
        """The samples that `picture` shows every time."""
        self._preview = self.collate(items)

    def picture(self) -> torch.Tensor | None:
        """Base, masks, result and, if the config says so, details of the preview's samples, a row each, in [0, 1]."""
        batch = self._preview
        if batch is None:
            return None
        images, more = self.paint(batch), []
        if self._solver.SAMPLE_DETAILS:
            more = detail_columns(batch.inputs[:, 3:], cut_defects(images, batch.masks), batch.defects)
        return comparison_grid(batch.base, batch.masks, images, more)


def _note_diversity(fake: torch.Tensor, real: torch.Tensor) -> None:
    """How much the pixels of generated defects differ among themselves, over the same for real ones."""
    spreads = []
    for canvases in (fake, real):
        painted = canvases.detach()[canvases > 0].float()
        if painted.numel() < 2:
            return
        spreads.append(painted.std())
    ratio = spreads[0] / spreads[1].clamp(min=1e-6)
    get_event_storage().put_scalar("gan/image/diversity", ratio.item())


DISCRIMINATOR, GENERATOR = "discriminator", "generator"


@dataclass(frozen=True)
class Turns:
    """`disc` turns of the discriminators, then `gen` turns of the generator, and so on (COIGAN's code)."""

    disc: int = 1
    gen: int = 1

    def turn(self, player: str, iteration: int) -> int | None:
        """The number of this turn among the player's own, from 0; None if it is the other's."""
        cycle, place = divmod(iteration, self.disc + self.gen)
        if player == DISCRIMINATOR:
            return cycle * self.disc + place if place < self.disc else None
        return cycle * self.gen + place - self.disc if place >= self.disc else None

    def is_due(self, player: str, iteration: int, every: int = 1) -> bool:
        """Whether the player does at this iteration what it does at every `every`-th of its turns."""
        turn = self.turn(player, iteration)
        return turn is not None and turn % every == 0


@dataclass(frozen=True)
class TurnPhase(Phase):
    """A phase that is due at every `every`-th turn of its player, and only then."""

    turns: Turns = Turns()
    player: str = GENERATOR

    def is_due(self, iteration: int) -> bool:
        return self.turns.is_due(self.player, iteration, self.every)


def build_game(cfg: CfgNode, classes: int) -> InpaintingGame:
    """All players of `cfg` for masks of so many classes, on its device, with weights drawn from the global state.

    Raises:
        UserError: see `build_generator` and InpaintingGame.
    """
    device = choose_device(cfg.DEVICE)
    reference = None
    if cfg.MODEL.REF_DISCRIMINATOR.ENABLED:
        reference = build_discriminator(cfg, "REF_DISCRIMINATOR", 3).to(device)
    generator = build_generator(cfg, classes).to(device)
    return InpaintingGame(cfg, generator, build_discriminator(cfg, "DISCRIMINATOR", 3 * classes).to(device), reference)
