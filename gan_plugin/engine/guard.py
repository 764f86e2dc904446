"""What a run refuses: options that exclude each other, and losses that are not finite."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from torch import nn

from gan_plugin.errors import UserError, explanation
from gan_plugin.evaluation.truth_boxes import drawing_of
from gan_plugin.modeling import AdversarialModel


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss became NaN or infinite; the generator's weights have not seen it."""


def check_finite(losses: Mapping[str, torch.Tensor], iteration: int) -> None:
    """Raise NonFiniteLossError, which names the losses and the iteration, unless all of `losses` are finite."""
    # One transfer for all of them: each makes a GPU wait.
    values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
    bad = [f"{name} is {value}" for name, value in zip(losses, values, strict=True) if not math.isfinite(value)]
    if bad:
        raise diverged(iteration, ", ".join(bad))


def diverged(iteration: int, what: str) -> NonFiniteLossError:
    """The error of a run that diverged at `iteration`, with `what` was not finite."""
    return NonFiniteLossError(
        f"Training stopped at iteration {iteration}: {what.rstrip('.! ')}. The last checkpoint is kept; lower "
        "SOLVER.BASE_LR or SOLVER.DISC.BASE_LR, or switch SOLVER.CLIP_GRADIENTS on, and continue with --resume."
    )


def refuse_unsupported(cfg: CfgNode, model: nn.Module) -> None:
    """Raise a UserError if `cfg` asks for what this model, or this machine, cannot do."""
    gan = cfg.MODEL.GAN
    key = "MODEL.GAN.ENABLED" if gan.ENABLED else "MODEL.GAN.MASK.BOX_ONLY"
    if (gan.ENABLED or gan.MASK.BOX_ONLY) and not isinstance(model, AdversarialModel):
        raise UserError(
            f"{key} is True, but build_model has made a {type(model).__name__} that was not built from the "
            "config, so nothing observes it; build it by its constructor with the config, or set the key to False."
        )
    if cfg.TEST.TRUTH_BOXES:
        drawing_of(model)
    if cfg.TEST.PRECISE_BN.ENABLED and (gan.ENABLED or gan.EMA.DECAY > 0):
        raise UserError("TEST.PRECISE_BN.ENABLED does not go together with MODEL.GAN; set it to False.")
    if cfg.SOLVER.GRADIENT_SHARES_PERIOD and gan.ENABLED and gan.COMPILE and not gan.BALANCE.SHARE:
        raise UserError(
            "SOLVER.GRADIENT_SHARES_PERIOD goes back through a discriminator twice where MODEL.GAN.BALANCE.SHARE is 0, "
            "which MODEL.GAN.COMPILE does not allow; set one of them to 0 or False."
        )
    if not (gan.ENABLED and gan.MODE == "alternating"):
        return
    if not (gan.MASK.ENABLED or gan.BOX.ENABLED):
        raise UserError(
            "MODEL.GAN.MODE alternating needs a discriminator; set MODEL.GAN.MASK.ENABLED or MODEL.GAN.BOX.ENABLED to "
            "True."
        )
    if cfg.SOLVER.ACCUMULATE > 1 and (gan.ORDER != "paper" or gan.DISC_STEPS > 1):
        raise UserError(
            f"SOLVER.ACCUMULATE {cfg.SOLVER.ACCUMULATE} needs MODEL.GAN.ORDER paper and MODEL.GAN.DISC_STEPS 1 in the "
            "alternating mode: a discriminator that steps first would have to see all batches first."
        )


@contextmanager
def quiet_user_errors() -> Iterator[None]:
    """Within the block Detectron2's training loop logs no traceback for an error whose explanation says it all."""
    logger = logging.getLogger("detectron2.engine.train_loop")

    def keep(record: logging.LogRecord) -> bool:
        return not (record.exc_info and explanation(record.exc_info[1]))

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
