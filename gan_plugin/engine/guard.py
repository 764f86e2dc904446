"""What a run refuses: options that exclude each other, and losses that are not finite."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from gan_plugin.errors import UserError
from gan_plugin.modeling.meta_arch import AdversarialRCNN


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss became NaN or infinite; the generator's weights have not seen it."""


def check_finite(losses: Mapping[str, torch.Tensor], iteration: int) -> None:
    """Raise NonFiniteLossError, which names the losses and the iteration, unless all of `losses` are finite."""
    values = {name: loss.item() for name, loss in losses.items()}
    bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
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
    if gan.ENABLED and not isinstance(model, AdversarialRCNN):
        raise UserError(
            f"MODEL.GAN.ENABLED is True, but MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}, which has no "
            "discriminator; set it to AdversarialRCNN."
        )
    if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu":
        raise UserError("SOLVER.AMP.ENABLED needs a GPU; set it to False, or MODEL.DEVICE to cuda.")
    if cfg.TEST.PRECISE_BN.ENABLED and (gan.ENABLED or gan.EMA.DECAY > 0):
        raise UserError("TEST.PRECISE_BN.ENABLED does not go together with MODEL.GAN; set it to False.")
    several = comm.get_world_size() > 1
    if several and gan.ENABLED and "Sync" in gan.MASK.NORM:
        raise UserError(
            f"MODEL.GAN.MASK.NORM {gan.MASK.NORM} would hang where one process has no masks; set it to GN or BN."
        )
    if not (gan.ENABLED and gan.MODE == "alternating"):
        return
    if not gan.MASK.ENABLED:
        raise UserError("MODEL.GAN.MODE alternating needs a discriminator; set MODEL.GAN.MASK.ENABLED to True.")
    if cfg.SOLVER.AMP.ENABLED:
        raise UserError("SOLVER.AMP.ENABLED works in the joint mode only; set MODEL.GAN.MODE to joint.")
    if several:
        raise UserError("The alternating mode runs in one process; set MODEL.GAN.MODE to joint, or --num-gpus to 1.")


@contextmanager
def quiet_user_errors() -> Iterator[None]:
    """Within the block Detectron2's training loop logs no traceback for a UserError, whose sentence says it all."""
    logger = logging.getLogger("detectron2.engine.train_loop")

    def keep(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], UserError))

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
