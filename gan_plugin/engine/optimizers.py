"""One optimizer for each player; together they hold every parameter exactly once."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.solver import build_lr_scheduler, build_optimizer, get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from gan_plugin.config import check_choice


def build_generator_optimizer(
    cfg: CfgNode, model: nn.Module, exclude: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The optimizer that `SOLVER.OPTIMIZER` names over all parameters of `model` that learn but `exclude`.

    "sgd" is Detectron2's `build_optimizer`; "adamw" takes the same keys for learning rate, decay and clipping, and
    so does "adam"; both read `SOLVER.BETAS`.
    """
    kind = check_choice("SOLVER.OPTIMIZER", cfg.SOLVER.OPTIMIZER)
    with left_out(exclude):
        return build_optimizer(cfg, model) if kind == "sgd" else _adam(cfg, model, decoupled=kind == "adamw")


@contextmanager
def left_out(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Detectron2's optimizers that are built within the block do not hold `parameters`."""
    # It leaves out what needs no gradient, which is how a parameter is kept from its optimizer.
    switched_off = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in switched_off:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in switched_off:
            parameter.requires_grad_(True)


def without(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The same optimizer, which has not stepped yet, without `parameters` and the groups that are empty then."""
    excluded = {id(parameter) for parameter in parameters}
    groups = optimizer.param_groups
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in excluded]
    groups[:] = [group for group in groups if group["params"]]
    return optimizer


def with_all(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The same optimizer with those of `parameters` that it did not hold, in a group with its default settings."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [parameter for parameter in parameters if id(parameter) not in held]
    if missing:
        optimizer.add_param_group({"params": missing})
    return optimizer


def clipping(
    optimizer: type[torch.optim.Optimizer], clip_value: float, clip_type: str = "norm"
) -> type[torch.optim.Optimizer]:
    """The same kind of optimizer, which clips the gradient of every parameter before its step.

    Args:
        optimizer: such as torch.optim.AdamW.
        clip_value: the greatest norm, or the greatest absolute value.
        clip_type: "norm" or "value".
    """
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip_type
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = float(clip_value)
    return maybe_add_gradient_clipping(cfg, optimizer)


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What an optimizer was built with, group by group: learning rate, momentum, decay and so on."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def put_settings(optimizer: torch.optim.Optimizer, settings: list[dict[str, Any]]) -> None:
    """Give an optimizer whose state has been loaded the settings of this run's config again.

    PyTorch loads those of the checkpoint, with which a lower BASE_LR of a resumed run would change nothing. Where a
    schedule has got to stays: the rate keeps its ratio to the base rate.
    """
    for group, asked in zip(optimizer.param_groups, settings, strict=True):
        rate, before, now = asked["lr"], group.get("initial_lr"), asked.get("initial_lr")
        if before and now is not None:
            rate = group["lr"] if now == before else group["lr"] * now / before
        group.update(asked | {"lr": rate})


def _adam(cfg: CfgNode, model: nn.Module, decoupled: bool) -> torch.optim.Optimizer:
    groups = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
    )
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW if decoupled else torch.optim.Adam)
    return optimizer(groups, lr=cfg.SOLVER.BASE_LR, betas=tuple(cfg.SOLVER.BETAS), weight_decay=cfg.SOLVER.WEIGHT_DECAY)


def build_discriminator_optimizer(cfg: CfgNode, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that `SOLVER.DISC` describes; by default the thesis' Adam (5.4.2)."""
    disc = cfg.SOLVER.DISC
    kind = check_choice("SOLVER.DISC.OPTIMIZER", disc.OPTIMIZER)
    parameters = list(parameters)
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=disc.BASE_LR, momentum=disc.MOMENTUM, weight_decay=disc.WEIGHT_DECAY)
    adam = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
    return adam(parameters, lr=disc.BASE_LR, betas=tuple(disc.BETAS), weight_decay=disc.WEIGHT_DECAY)


def build_discriminator_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The schedule that `SOLVER.DISC.SCHEDULE` names: "constant", or "follow" the generator's warm-up and steps."""
    if check_choice("SOLVER.DISC.SCHEDULE", cfg.SOLVER.DISC.SCHEDULE) == "follow":
        return build_lr_scheduler(cfg, optimizer)
    return LambdaLR(optimizer, _unchanged)


def _unchanged(step: int) -> float:
    return 1.0
