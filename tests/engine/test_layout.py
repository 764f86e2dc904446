"""Weights whose memory order is not that of their gradients or of an optimizer's state, and channels that come last."""

import copy

import pytest
import torch
from forked_runs import Fork
from torch import nn

from gan_plugin.compat import fused_adam
from gan_plugin.engine.steps import AlternatingStep
from gan_plugin.layers.layout import lay_out_states, to_channels_last


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


@pytest.mark.parametrize("stride", [2, (1, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_channels_last_changes_no_value_of_a_strided_pointwise_convolution(stride, groups):
    torch.manual_seed(0)
    wrap = nn.utils.parametrizations.spectral_norm
    plain = nn.Sequential(wrap(nn.Conv2d(4, 6, 1, stride, groups=groups)), nn.ELU(), nn.Conv2d(6, 8, 3, 2, 1)).double()
    # an average of the weights is a copy
    last = copy.deepcopy(to_channels_last(copy.deepcopy(plain)))
    assert list(last.state_dict()) == list(plain.state_dict())
    results = []
    for network in (plain, last):
        at = torch.rand(2, 4, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        output = network(at)
        (slope,) = torch.autograd.grad(output.square().sum(), at, create_graph=True)
        slope.square().sum().backward()
        results.append([output, slope, at.grad, *(parameter.grad for parameter in network.parameters())])
    torch.testing.assert_close(*reversed(results), check_stride=False)


def learn():
    for channels in (2, 4, 7, 15):
        for images, outputs, side in ((4, 8, 8), (4, 12, 16)):
            network = to_channels_last(nn.Conv2d(channels, outputs, 1, 2))
            truth = nn.Conv2d(channels, outputs, 1, 2).double()
            truth.load_state_dict(network.state_dict())
            at = torch.randn(images, channels, side, side)
            for _ in range(3):
                last = at.contiguous(memory_format=torch.channels_last)
                for player, values in ((network, last), (truth, at.double())):
                    player.zero_grad()
                    player(values).square().sum().backward()
                torch.testing.assert_close(network.weight.grad.double(), truth.weight.grad, rtol=1e-3, atol=1e-3)


def test_narrow_strided_pointwise_convolutions_learn_and_live(tmp_path):
    # in a process of its own, since what dies there is the process
    console = tmp_path / "console.txt"
    assert Fork(learn, console).wait() == 0, console.read_text()
