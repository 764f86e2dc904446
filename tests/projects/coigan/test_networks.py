"""The networks: sizes, weights, and what their verdicts and styles depend on, with numbers from the sources."""

import pytest
import torch
from coigan.modeling import (
    DISCRIMINATOR_REGISTRY,
    GENERATOR_REGISTRY,
    LamaFourier,
    PatchDiscriminator,
    StyleFFCUNet,
    WaveletDiscriminator,
    WaveletGenerator,
    build_network,
)
from coigan.modeling.build import judge_pair
from coigan.modeling.layers import halve
from coigan.modeling.wavelet import dwt, iwt

from gan_plugin.errors import UserError


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_lama_fourier_has_the_sources_parameters():
    assert count(LamaFourier(7, blocks=8)) == 24_399_683
    assert round(count(LamaFourier(6, blocks=9)) / 1e6, 2) == 27.06


@pytest.mark.parametrize("batch", [3, 4, 6])
def test_two_batches_in_one_pass_are_judged_as_if_alone(batch):
    torch.manual_seed(0)
    network = WaveletDiscriminator(3, 16, disc_width=8).double()
    real, fake = torch.randn(2, batch, 3, 16, 16, dtype=torch.float64).unbind()
    together, apart = judge_pair(network, real, fake), (network(real), network(fake))
    torch.testing.assert_close(together, apart)
    gradients = [
        torch.autograd.grad((on_fake.exp() - on_real.exp()).sum(), list(network.parameters()))
        for on_real, on_fake in (together, apart)
    ]
    torch.testing.assert_close(*gradients)
    # the statistics see their own batch only
    assert not torch.allclose(network(torch.cat([real, 9 * fake]))[:batch], together[0])


def test_batch_normalisation_judges_each_batch_in_a_pass_of_its_own():
    torch.manual_seed(0)
    network = PatchDiscriminator(3, disc_width=4)
    real, fake = torch.randn(2, 2, 3, 32, 32).unbind()
    torch.testing.assert_close(judge_pair(network, real, 9 * fake)[0], network(real))


def test_wavelet_discriminator_is_swagans_chain_of_transforms():
    torch.manual_seed(0)
    network = WaveletDiscriminator(6, 64, disc_width=8)
    images = torch.randn(5, 6, 64, 64)
    bands = dwt(images)
    hidden = network.from_image[0](bands)
    for block, entry in zip(network.blocks, list(network.from_image)[1:], strict=True):
        bands = dwt(halve(iwt(bands)))
        hidden = block(hidden) + entry(bands)
    expected = network.verdict(network.final(network.statistics(hidden)))[:, 0]
    torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=1e-4)


def test_wavelet_discriminator_has_the_sources_widths():
    with torch.device("meta"):
        network = WaveletDiscriminator(12, 256)
    widths = [conv.weight.shape[0] for conv in network.from_image]
    assert widths == [192, 768, 512, 512, 512, 512]
    assert network.from_image[0].weight.shape[1] == 48


@pytest.mark.parametrize("size, fits", [(16, True), (48, True), (80, True), (72, False), (50, False), (8, False)])
def test_wavelet_discriminator_takes_sizes_that_halve_down(size, fits):
    if fits:
        assert WaveletDiscriminator(3, size, disc_width=4)(torch.randn(2, 3, size, size)).shape == (2,)
    else:
        with pytest.raises(UserError, match="power of two"):
            WaveletDiscriminator(3, size, disc_width=4)


@pytest.mark.parametrize("name", [name for name, _ in GENERATOR_REGISTRY])
def test_every_generator_keeps_the_size_and_uses_every_weight(name):
    torch.manual_seed(0)
    options = {"width": 8, "downs": 2, "blocks": 1, "style_size": 8, "mapping_layers": 2, "dropout": 0.0}
    network = build_network(GENERATOR_REGISTRY, name, "MODEL.GENERATOR.NAME", in_channels=5, **options)
    images = network(torch.rand(2, 5, 16, 24))
    assert images.shape == (2, 3, 16, 24) and images.min() >= 0 and images.max() <= 1
    images.square().sum().backward()
    assert not [key for key, parameter in network.named_parameters() if parameter.grad is None]
    with pytest.raises(UserError, match="multiples of 4"):
        network(torch.rand(2, 5, 18, 24))


def test_the_style_decides_and_repeats():
    torch.manual_seed(0)
    network = StyleFFCUNet(4, width=8, downs=2, blocks=1, style_size=8, mapping_layers=2).eval()
    x, one, other = torch.rand(1, 4, 16, 16), torch.randn(1, 8), torch.randn(1, 8)
    torch.testing.assert_close(network(x, one), network(x, one))
    assert (network(x, one) - network(x, other)).abs().max() > 1e-4


def test_an_unknown_network_lists_the_known():
    with pytest.raises(UserError, match="'LamaFourier', 'MultiDilated', 'Pix2PixHD'"):
        build_network(GENERATOR_REGISTRY, "Lama", "MODEL.GENERATOR.NAME")
    assert {name for name, _ in DISCRIMINATOR_REGISTRY} == {"WaveletDiscriminator", "PatchDiscriminator"}


def test_patch_discriminator_maps_verdicts():
    # five layers of kernel 4 and padding 2, four of them of stride 2, then one verdict a place
    assert PatchDiscriminator(3, disc_width=4)(torch.randn(2, 3, 64, 64)).shape == (2, 7, 7)


def test_mask_generator_draws_any_size_and_mixes_styles():
    torch.manual_seed(0)
    network = WaveletGenerator(32, style_size=8, mapping_layers=1, width=8)
    one, other = torch.randn(2, 2, 8).unbind()
    assert network(one).shape == (2, 3, 32, 32)
    mixed = network.styles(one, other, crossover=1)
    torch.testing.assert_close(mixed[:, 0], network.mapping(one))
    torch.testing.assert_close(mixed[:, -1], network.mapping(other))
    with pytest.raises(UserError, match="power of two"):
        WaveletGenerator(48)
