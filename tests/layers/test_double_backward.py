"""Gradients of a gradient: PyTorch's own values at another price."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode

from gan_plugin.layers.double_backward import CheapDoubleBackward, input_gradient


def plain_gradient(function, at):
    at = at.detach().requires_grad_(True)
    return torch.autograd.grad(function(at).sum(), at, create_graph=True)[0]


def both_derivatives(take, function, at, weights):
    """The gradient of `at`, and what a loss of it gives the weights."""
    gradient = take(function, at)
    loss = (gradient * torch.linspace(-1, 1, gradient.numel(), dtype=at.dtype).view_as(gradient)).square().sum()
    return gradient, torch.autograd.grad(loss, weights, allow_unused=True)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999),
    transposed=st.booleans(),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    extra=st.integers(0, 1),
    bias=st.booleans(),
    last=st.booleans(),
)
def test_convolutions_have_pytorchs_second_derivative(
    seed, transposed, kernel, stride, padding, dilation, groups, extra, bias, last
):
    torch.manual_seed(seed)
    layer = nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups, bias)
    if transposed:
        extra = min(extra, max(dilation, min(stride)) - 1)
        padding = tuple(min(pad, dilation * (size - 1) // 2) for pad, size in zip(padding, kernel, strict=True))
        layer = nn.ConvTranspose2d(4, 6, kernel, stride, padding, extra, groups, bias, dilation)
    layer = layer.double()
    at = torch.randn(2, 4, 9, 10, dtype=torch.double)
    at = at.contiguous(memory_format=torch.channels_last) if last else at

    def function(x):
        return torch.tanh(layer(x))

    expected = both_derivatives(plain_gradient, function, at, list(layer.parameters()))
    torch.testing.assert_close(both_derivatives(input_gradient, function, at, list(layer.parameters())), expected)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 9999),
    affine=st.booleans(),
    shape=st.sampled_from([(6, 3), (4, 3, 5), (3, 3, 4, 5), (2, 3, 1, 1), (2, 3, 2, 3, 2)]),
    last=st.booleans(),
)
def test_batch_norm_has_pytorchs_second_derivative(seed, affine, shape, last):
    torch.manual_seed(seed)
    layers = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    norms = [layers[len(shape)](3, affine=affine).double() for _ in range(2)]
    first = nn.Parameter(torch.randn(shape, dtype=torch.double))
    at = torch.randn(shape, dtype=torch.double)
    if last and len(shape) == 4:
        at = at.contiguous(memory_format=torch.channels_last)
    results = []
    for take, norm in zip((plain_gradient, input_gradient), norms, strict=True):
        if affine:
            norm.weight.data, norm.bias.data = torch.tensor([0.5, 0.0, -2.0]).double(), torch.ones(3).double()
        weights = [first, *([norm.weight] if affine else [])]
        results.append(both_derivatives(take, lambda x, norm=norm: torch.tanh(norm(x * first)), at, weights))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(norms[1].state_dict(), norms[0].state_dict())


def batch_norm_by_hand(x, gain, bias):
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * gain.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


@pytest.mark.parametrize("of", ["input", "gain"])
def test_batch_norm_can_be_differentiated_on(of):
    torch.manual_seed(0)
    at = {"input": torch.randn(3, 2, 4, 4), "gain": torch.rand(2), "bias": torch.randn(2), "first": torch.rand(4)}
    at = {name: value.double().requires_grad_() for name, value in at.items()}
    results = []
    for norm in (batch_norm_by_hand, lambda x, *weights: functional.batch_norm(x, None, None, *weights, True)):
        with CheapDoubleBackward():
            outputs = torch.tanh(norm(torch.tanh(at["input"] * at["first"]), at["gain"], at["bias"]))
        (first,) = torch.autograd.grad(outputs.sum(), at[of], create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), at["input"], create_graph=True)
        (third,) = torch.autograd.grad(second.square().sum(), at["first"], create_graph=True)
        # named weights, as in a step: an error in wait on the way to others would not be met
        results.append([third, *torch.autograd.grad(third.square().sum(), [at["gain"], at["bias"]])])
    torch.testing.assert_close(results[1], results[0])


class Sizes(TorchDispatchMode):
    """Counts convolutions of every kind, and the largest kernel among them."""

    def __init__(self):
        super().__init__()
        self.kernel, self.weight_gradients = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.kernel = max(self.kernel, args[1].shape[-1])
        if func is torch.ops.aten.convolution_backward.default:
            self.weight_gradients += args[-1][1]
        return func(*args, **(kwargs or {}))


def test_a_penalty_costs_no_convolution_by_a_feature_map_and_no_gradient_of_a_weight_that_rests():
    torch.manual_seed(0)
    moving, resting = spectral_norm(nn.Conv2d(3, 8, 4, 2, 1)), nn.Conv2d(8, 4, 4, 2, 1)
    norm = nn.BatchNorm2d(8)

    def judge(x):
        return functional.leaky_relu(resting(functional.leaky_relu(norm(moving(x)), 0.2)), 0.2).square()

    counts = []
    for take in (plain_gradient, input_gradient):
        slope = take(judge, torch.randn(2, 3, 32, 32)).square().sum()
        with Sizes() as sizes:
            slope.backward(inputs=[moving.parametrizations.weight.original])
        counts.append((sizes.kernel, sizes.weight_gradients))
    # PyTorch convolves by gradients of 16 and 8 pixels; ours takes the moving weight's gradient twice, as it occurs
    assert counts[0][0] == 16
    assert counts[1] == (4, 2)


def test_mixed_precision_rare_forms_and_one_value_a_channel_are_pytorchs():
    conv, norm = nn.Conv2d(2, 2, 3, padding="same"), nn.BatchNorm2d(2)
    with CheapDoubleBackward():
        with torch.autocast("cpu", torch.bfloat16):
            assert conv(torch.randn(2, 2, 4, 4)).dtype == torch.bfloat16
        assert conv(torch.randn(2, 2, 4, 4)).grad_fn.name() == "ConvolutionBackward0"
        assert norm.eval()(torch.randn(2, 2, 4, 4)).grad_fn.name() == "NativeBatchNormBackward0"
        with pytest.raises(ValueError, match="more than 1 value"):
            norm.train()(torch.randn(1, 2, 1, 1))
        # the kernel itself would read and write beyond the weights of two channels
        with pytest.raises(RuntimeError, match="should contain 3 elements"):
            norm(torch.randn(2, 3, 4, 4))
        nobody = torch.randn(0, 2, 4, 4, requires_grad=True)
        assert norm(nobody).shape == nobody.shape and norm.running_mean.isfinite().all()
        waves = torch.full((1, 1, 2, 2), 1j)
        assert functional.conv2d(waves, nn.Parameter(waves)) == -4
