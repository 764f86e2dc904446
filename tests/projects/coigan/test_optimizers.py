"""The optimizers by name."""

import pytest
import torch
from coigan.config import load_config
from coigan.modeling.build import build_optimizer

from gan_plugin.errors import UserError


@pytest.mark.parametrize("name, plain", [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_the_fused_optimizer_is_the_plain_one(name, plain):
    solver = load_config("", ["SOLVER.OPTIMIZER", name]).SOLVER
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2))
    optimizers = (
        build_optimizer(solver, [ours], 0.1),
        plain([theirs], 0.1, tuple(solver.BETAS), weight_decay=solver.WEIGHT_DECAY),
    )
    for step in range(5):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = (torch.arange(50) * (step + 1.0)).sin()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(UserError, match="SOLVER.OPTIMIZER is 'lion'.* ones are 'adamw', 'adam', 'sgd', 'rmsprop'"):
        build_optimizer(load_config("", ["SOLVER.OPTIMIZER", "lion"]).SOLVER, [torch.nn.Parameter(torch.ones(1))], 0.1)
