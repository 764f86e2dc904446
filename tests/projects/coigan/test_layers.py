"""The networks' layers against naive loops, closed formulas and cases by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from coigan.modeling.fourier import FFC, FourierUnit, SpectralTransform
from coigan.modeling.layers import EqualConv2d, EqualLinear, MinibatchStd, ModulatedConv2d, double, halve
from coigan.modeling.resnet_generator import MultiDilatedConv
from coigan.modeling.wavelet import dwt, iwt
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_plugin.errors import UserError


def test_fourier_unit_equals_a_transform_by_definition():
    """Sums over all pixels, row frequency k and column frequency l, with 1 / sqrt(HW) in both directions; W is odd."""
    torch.manual_seed(0)
    unit = FourierUnit(2).double().eval()
    h, w = 4, 5
    x = torch.randn(1, 2, h, w, dtype=torch.float64)
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    spectrum = torch.zeros(2, h, w, dtype=torch.complex128)
    for k in range(h):
        for el in range(w):
            wave = torch.exp(-2j * math.pi * (k * rows / h + el * columns / w))
            spectrum[:, k, el] = (x[0] * wave).sum((1, 2)) / math.sqrt(h * w)
    half = spectrum[..., : w // 2 + 1]
    parts = unit.norm(unit.conv(torch.cat([half.real, half.imag])[None])).relu()[0]
    mixed = torch.complex(parts[:2], parts[2:])
    expected = torch.zeros(2, h, w, dtype=torch.float64)
    for y in range(h):
        for z in range(w):
            for el in range(w // 2 + 1):
                wave = torch.exp(2j * math.pi * (torch.arange(h) * y / h + el * z / w))
                # the missing half of the spectrum is the conjugate of this one
                twice = 1 if el == 0 else 2
                expected[:, y, z] += twice * (mixed[:, :, el] * wave).real.sum(1) / math.sqrt(h * w)
    got = unit.float()(x.float())[0]
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-4)


def test_ffc_is_its_four_paths():
    torch.manual_seed(0)
    layer = FFC(8, 0.75).eval()
    x = torch.randn(2, 8, 6, 6)
    low, high = x[:, :2], x[:, 2:]

    def conv(inputs, weight):
        return F.conv2d(F.pad(inputs, (1, 1, 1, 1), mode="reflect"), weight)

    weight = layer.to_local.weight
    local = conv(low, weight[:, :2]) + conv(high, weight[:, 2:])
    spectral = layer.spectral
    reduced = spectral.reduce(high)
    wide = conv(low, layer.to_global.weight) + spectral.expand(reduced + spectral.fourier(reduced))
    torch.testing.assert_close(layer(x), torch.cat([local, wide], dim=1))
    with pytest.raises(UserError, match="between 0 and 1"):
        FFC(8, 0.0)


def test_spectral_transform_of_the_thesis_table_doubles_the_channels():
    transform = SpectralTransform(6, 6, "concat")
    assert transform(torch.randn(2, 6, 4, 4)).shape == (2, 6, 4, 4)
    assert transform.expand[0].weight.shape == (6, 6, 1, 1) and SpectralTransform(6, 6).expand.weight.shape[1] == 3
    with pytest.raises(UserError, match="'sum', 'concat'"):
        SpectralTransform(6, 6, "product")


def test_fourier_unit_stays_in_single_precision_under_autocast():
    unit = FourierUnit(2).eval()
    x = torch.randn(1, 2, 8, 8) * 100
    with torch.autocast("cpu", torch.bfloat16):
        mixed = unit(x.bfloat16())
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, unit(x.bfloat16().float()))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_wavelets_there_and_back(n, c, h, w):
    images = torch.randn(n, c, 2 * h, 2 * w, dtype=torch.float64)
    bands = dwt(images)
    assert bands.shape == (n, 4 * c, h, w)
    torch.testing.assert_close(iwt(bands), images)
    torch.testing.assert_close(dwt(iwt(bands)), bands)
    torch.testing.assert_close(bands.square().sum(), images.square().sum())


def test_wavelets_of_a_case_by_hand():
    bands = dwt(torch.tensor([[[[1.0, 2.0], [3.0, 8.0]]]]))
    # average, upper less lower row, left less right column, and the diagonal difference, each halved
    assert bands.flatten().tolist() == [7.0, -4.0, -3.0, 2.0]


def test_fir_resampling_equals_loops():
    taps = [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    x = torch.randn(1, 1, 6, 6)
    small, large = halve(x), double(x)
    assert small.shape[-2:] == (3, 3) and large.shape[-2:] == (12, 12)
    for i in range(3):
        for j in range(3):
            value = sum(
                taps[a] * taps[b] * x[0, 0, 2 * i + a - 1, 2 * j + b - 1]
                for a in range(4)
                for b in range(4)
                if 0 <= 2 * i + a - 1 < 6 and 0 <= 2 * j + b - 1 < 6
            )
            torch.testing.assert_close(small[0, 0, i, j], value)
    # zeros between the samples, then the filter with gain 2 on either axis
    spread = torch.zeros(12, 12)
    spread[::2, ::2] = x[0, 0]
    for i in range(12):
        for j in range(12):
            value = sum(
                4 * taps[a] * taps[b] * spread[i + 1 - a, j + 1 - b]
                for a in range(4)
                for b in range(4)
                if 0 <= i + 1 - a < 12 and 0 <= j + 1 - b < 12
            )
            torch.testing.assert_close(large[0, 0, i, j], torch.as_tensor(value))


@pytest.mark.parametrize("batch", [1, 4, 5, 8])
def test_minibatch_statistics_of_any_batch(batch):
    x = torch.randn(batch, 3, 2, 2)
    out = MinibatchStd(4)(x)
    groups = math.ceil(batch / 4)
    for sample in range(batch):
        members = [x[other] for other in range(batch) if other % groups == sample % groups]
        spread = torch.stack(members).std(dim=0, unbiased=False).clamp(min=1e-4).mean()
        torch.testing.assert_close(out[sample, 3], spread.expand(2, 2))


def drawn(layer, inputs):
    """The scale on the weights, then the gain, one after the other (Karras et al. 2018, section 4.1)."""
    weight = layer.weight * layer.scale
    if isinstance(layer, EqualLinear):
        outputs = F.linear(inputs, weight, layer.bias)
    else:
        outputs = F.conv2d(inputs, weight, layer.bias, layer.stride, layer.padding)
    return F.leaky_relu(outputs, 0.2) * math.sqrt(2) if layer.activate else outputs


@pytest.mark.parametrize("activate", [True, False])
@pytest.mark.parametrize("side", [2, 12])  # fewer numbers than the weights, and more
def test_equalised_layers_have_the_scale_and_two_derivatives_wherever_it_is_applied(side, activate):
    torch.manual_seed(0)
    conv = EqualConv2d(6, 5, 3, padding=1, activate=activate).double()
    linear = EqualLinear(6 * side**2, 5, activate=activate).double()
    x = torch.randn(2, 6, side, side, dtype=torch.float64, requires_grad=True)
    for layer, inputs in ((conv, x), (linear, x.flatten(1))):
        layer.bias.data.normal_()
        results = []
        for outputs in (layer(inputs), drawn(layer, inputs)):
            (slope,) = torch.autograd.grad(outputs.square().sum(), x, create_graph=True)
            results.append([outputs, slope, *torch.autograd.grad(slope.square().sum(), [x, *layer.parameters()])])
        torch.testing.assert_close(*results)


def test_modulated_convolution_equals_one_convolution_a_sample():
    torch.manual_seed(0)
    layer = ModulatedConv2d(4, 5, 3, 6)
    x, style = torch.randn(3, 4, 7, 7), torch.randn(3, 6)
    factors = layer.style(style)
    for sample in range(3):
        weight = layer.weight * layer.scale * factors[sample][None, :, None, None]
        weight = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()
        torch.testing.assert_close(layer(x, style)[sample], F.conv2d(x[sample : sample + 1], weight, padding=1)[0])


def test_multi_dilated_convolution_splits_the_channels():
    layer = MultiDilatedConv(8, (1, 2))
    x = torch.randn(1, 8, 9, 9)
    for part in range(2):
        weight = layer.convs[part].weight
        expected = F.conv2d(x[:, 4 * part : 4 * part + 4], weight, padding=part + 1, dilation=part + 1)
        torch.testing.assert_close(layer(x)[:, 4 * part : 4 * part + 4], expected)
