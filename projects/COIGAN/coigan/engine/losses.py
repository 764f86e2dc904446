"""The losses of a run, read from its config once, and the generator's besides the adversarial ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from yacs.config import CfgNode

from coigan.batch import Batch
from coigan.losses import (
    FeatureNetwork,
    LossWeight,
    feature_matching,
    loss_weight,
    plain_distance,
    plain_perceptual,
    smooth_masked_l1,
    smooth_masked_perceptual,
    weight_map,
)
from gan_plugin.errors import UserError

# the node of LOSS -> the scalar that it becomes
GENERATOR_LOSSES = {
    "ADVERSARIAL": "loss_adv_defect",
    "REF_ADVERSARIAL": "loss_adv_ref",
    "L1_SMOOTH": "loss_l1_smooth",
    "PERCEPTUAL_SMOOTH": "loss_perceptual_smooth",
    "L1": "loss_l1",
    "MSE": "loss_mse",
    "PERCEPTUAL": "loss_perceptual",
    "FEATURE_MATCHING": "loss_feature_matching",
    "DISC_PERCEPTUAL": "loss_judge_features",
}
_OTHERS = ("PATH_LENGTH", "DISCRIMINATOR", "REF_DISCRIMINATOR", "R1")


@dataclass(frozen=True)
class LossOptions:
    """All weights, and the config node that has the rest.

    Attributes:
        weights: by the node's name.
        node: LOSS of the config.
    """

    weights: Mapping[str, LossWeight]
    node: CfgNode

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "LossOptions":
        """The losses of `cfg`.

        Raises:
            UserError: a weight or schedule is not usable; the sentence names the key.
        """
        weights = {}
        for name in (*GENERATOR_LOSSES, *_OTHERS):
            try:
                weights[name] = loss_weight(cfg.LOSS[name].WEIGHT, cfg.LOSS[name].SCHEDULE)
            except UserError as error:
                raise UserError(f"LOSS.{name}.{error}") from error
        return cls(weights, cfg.LOSS)

    def at(self, name: str, iteration: int) -> float:
        """The weight of a loss at an iteration."""
        return self.weights[name].at(iteration)

    def needs_features(self) -> bool:
        """Whether a perceptual loss ever counts."""
        return self.weights["PERCEPTUAL"].on or self.weights["PERCEPTUAL_SMOOTH"].on


class Judge(Protocol):
    """A discriminator that shows its features."""

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) -> the outputs of its layers."""


class GeneratorLosses:
    """Those of LOSS that have a weight at an iteration."""

    def __init__(self, options: LossOptions, features: FeatureNetwork | None) -> None:
        """
        Args:
            options: weights and their parameters.
            features: of the perceptual losses; None where none of them is on.
        """
        self._options = options
        self._features = features

    def __call__(
        self, images: torch.Tensor, batch: Batch, iteration: int, judge: Judge | None
    ) -> dict[str, torch.Tensor]:
        """Named and weighted losses of `images`, (N, 3, H, W), which were painted for `batch`.

        Args:
            judge: the reference discriminator, for the losses on its features.
        """
        losses: dict[str, torch.Tensor] = {}
        parts: dict[str, Callable[[], torch.Tensor]] = {
            "L1_SMOOTH": lambda: self._smooth_l1(images, batch),
            "L1": lambda: plain_distance(images, batch.base, "l1", self._options.node.REDUCTION),
            "MSE": lambda: plain_distance(images, batch.base, "mse", self._options.node.REDUCTION),
        }
        for name, compute in parts.items():
            if weight := self._options.at(name, iteration):
                losses[GENERATOR_LOSSES[name]] = weight * compute()
        losses.update(self._perceptual(images, batch, iteration))
        if judge is not None:
            losses.update(self._by_judge(images, batch, iteration, judge))
        return losses

    def _smooth_l1(self, images: torch.Tensor, batch: Batch) -> torch.Tensor:
        node = self._options.node.L1_SMOOTH
        return smooth_masked_l1(images, batch.base, batch.masks, node.KERNEL, node.INSIDE, node.OUTSIDE)

    def _perceptual(self, images: torch.Tensor, batch: Batch, iteration: int) -> dict[str, torch.Tensor]:
        smooth, plain = (self._options.at(name, iteration) for name in ("PERCEPTUAL_SMOOTH", "PERCEPTUAL"))
        if self._features is None or not (smooth or plain):
            return {}
        with torch.no_grad():
            base = [layer.float() for layer in self._features(batch.base)]
        ours = [layer.float() for layer in self._features(images)]
        losses = {}
        if smooth:
            node = self._options.node.PERCEPTUAL_SMOOTH
            weights = weight_map(batch.masks, node.KERNEL, node.INSIDE, node.OUTSIDE)
            losses["loss_perceptual_smooth"] = smooth * smooth_masked_perceptual(ours, base, weights)
        if plain:
            losses["loss_perceptual"] = plain * plain_perceptual(ours, base, self._options.node.PERCEPTUAL.MEAN)
        return losses

    def _by_judge(self, images: torch.Tensor, batch: Batch, iteration: int, judge: Judge) -> dict[str, torch.Tensor]:
        matching, squared = (self._options.at(name, iteration) for name in ("FEATURE_MATCHING", "DISC_PERCEPTUAL"))
        if not (matching or squared):
            return {}
        with torch.no_grad():
            base = [layer.float() for layer in judge.features(batch.base)]
        ours = [layer.float() for layer in judge.features(images)]
        losses = {}
        if matching:
            losses[GENERATOR_LOSSES["FEATURE_MATCHING"]] = matching * feature_matching(ours, base)
        if squared:
            losses[GENERATOR_LOSSES["DISC_PERCEPTUAL"]] = squared * plain_perceptual(ours, base, mean_over_layers=True)
        return losses
