"""One optimizer for each player."""

from collections.abc import Iterable

import torch
from torch import nn
from yacs.config import CfgNode

from gan_plugin.compat import fused_adam
from gan_plugin.errors import UserError


def build_optimizer(solver: CfgNode, parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """The optimizer that SOLVER.OPTIMIZER names, over `parameters`, with learning rate `rate`.

    Raises:
        UserError: there is none of that name, or a value is out of range.
    """
    betas, decay = tuple(solver.BETAS), solver.WEIGHT_DECAY
    try:
        match solver.OPTIMIZER:
            case "adamw":
                return fused_adam(torch.optim.AdamW, parameters, lr=rate, betas=betas, weight_decay=decay)
            case "adam":
                return fused_adam(torch.optim.Adam, parameters, lr=rate, betas=betas, weight_decay=decay)
            case "sgd":
                return torch.optim.SGD(parameters, rate, momentum=betas[1], weight_decay=decay)
            case "rmsprop":
                return torch.optim.RMSprop(parameters, rate, alpha=betas[1], weight_decay=decay)
    except (ValueError, IndexError) as error:
        raise UserError(f"SOLVER: {error}; correct LR, DISC_LR, BETAS or WEIGHT_DECAY.") from error
    raise UserError(f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}; set it to adamw, adam, sgd or rmsprop.")
