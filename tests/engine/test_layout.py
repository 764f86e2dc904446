"""What a fused optimizer does with weights whose memory order is not that of their gradients or of its own state."""

import copy

import torch
from torch import nn

from gan_plugin.engine.layout import lay_out_states


def _one_step(network, optimizer):
    optimizer.zero_grad()
    network(torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    optimizer.step()


def test_a_state_saved_in_another_memory_order_continues_alike():
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 4, 3)
    optimizer = torch.optim.Adam(plain.parameters(), 0.1, fused=True)
    _one_step(plain, optimizer)
    last = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    last.load_state_dict(plain.state_dict())
    other = torch.optim.Adam(last.parameters(), 0.1, fused=True)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    lay_out_states(other)
    for _ in range(2):
        _one_step(plain, optimizer)
        _one_step(last, other)
    torch.testing.assert_close(last.weight, plain.weight, rtol=1e-5, atol=1e-6)
