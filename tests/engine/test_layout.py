"""What a fused optimizer does with weights whose memory order is not that of their gradients or of its own state."""

import copy

import torch
from torch import nn

from gan_plugin.compat import fused_adam
from gan_plugin.engine.layout import lay_out_states
from gan_plugin.engine.steps import AlternatingStep


def _one_step(network, optimizer):
    optimizer.zero_grad()
    network(torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    optimizer.step()


def test_a_state_saved_in_another_memory_order_continues_alike():
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 4, 3)
    optimizer = fused_adam(torch.optim.Adam, plain.parameters(), lr=0.1)
    _one_step(plain, optimizer)
    last = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    last.load_state_dict(plain.state_dict())
    other = fused_adam(torch.optim.Adam, last.parameters(), lr=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    lay_out_states(other)
    for _ in range(2):
        _one_step(plain, optimizer)
        _one_step(last, other)
    torch.testing.assert_close(last.weight, plain.weight, rtol=1e-5, atol=1e-6)


def test_a_resumed_step_reads_both_optimizers_states_in_its_weights_order():
    torch.manual_seed(0)
    steps = []
    for order in (torch.contiguous_format, torch.channels_last):
        players = nn.ModuleList(nn.Conv2d(3, 4, 3) for _ in range(2)).to(memory_format=order)
        optimizers = [fused_adam(torch.optim.Adam, player.parameters(), lr=0.1) for player in players]
        for player, optimizer in zip(players, optimizers, strict=True):
            _one_step(player, optimizer)
        steps.append(AlternatingStep(players, [], *optimizers, "thesis"))
    plain, last = steps
    expected = copy.deepcopy(plain.state_dict())
    last.load_state_dict(copy.deepcopy(expected))
    for player, optimizer, name in zip(
        last.model, (last.optimizer, last.disc_optimizer), ("optimizer", "disc_optimizer"), strict=True
    ):
        average = optimizer.state[player.weight]["exp_avg"]
        assert average.stride() == player.weight.stride() and not average.is_contiguous()
        torch.testing.assert_close(average, expected[name]["state"][0]["exp_avg"], check_stride=False)
