"""The losses of a run, read from its config once."""

from collections.abc import Mapping
from dataclasses import dataclass

from yacs.config import CfgNode

from coigan.losses import LossWeight, loss_weight
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
            UserError: a weight or schedule makes no sense; the sentence names the key.
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
