"""Networks against printed parameter counts, torchvision, and what their papers say of them."""

from pathlib import Path

import pytest
import torch
import torchvision
from car_gan.config import load_config
from car_gan.networks.build import build_networks
from car_gan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from car_gan.networks.parts import SelfAttention
from car_gan.networks.resnet import ResNetDiscriminator, ResNetGenerator

from gan_plugin import UserError

CONFIGS = Path(__file__).resolve().parents[3] / "projects/CarGAN/configs"


def preset(name, *opts):
    return load_config(str(CONFIGS / f"{name}.yaml"), ["MODEL.DEVICE", "cpu", *opts])


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    "name, generator, discriminator, share",
    [
        ("dcgan", 3_576_704, 2_765_568, 0.0),
        ("dcgan_big", 16_000_000, 9_100_000, 0.01),
        ("resnet34", 22_958_884, 21_298_918, 0.03),
    ],
)
def test_parameters_are_the_printed_numbers(name, generator, discriminator, share):
    networks = build_networks(preset(name))
    assert abs(count(networks.generator) - generator) <= share * generator
    assert abs(count(networks.discriminator) - discriminator) <= min(share, 0.01) * discriminator


def test_the_tutorials_layers_one_by_one():
    """Numbers of the tutorial's own print-out: kernels of 4x4, no bias, two numbers a normalised channel."""
    g = [100 * 512, 512 * 256, 256 * 128, 128 * 64, 64 * 3]
    assert count(DCGANGenerator()) == 16 * sum(g) + 2 * (512 + 256 + 128 + 64)
    d = [3 * 64, 64 * 128, 128 * 256, 256 * 512, 512]
    assert count(DCGANDiscriminator()) == 16 * sum(d) + 2 * (128 + 256 + 512)


def test_big_dcgan_has_seven_and_six_layers():
    networks = build_networks(preset("dcgan_big"))
    assert sum(isinstance(m, torch.nn.ConvTranspose2d) for m in networks.generator.modules()) == 7
    assert sum(isinstance(m, torch.nn.Conv2d) for m in networks.discriminator.modules()) == 6


@pytest.mark.parametrize("blocks, reference", [((2, 2, 2, 2), "resnet18"), ((3, 4, 6, 3), "resnet34")])
def test_the_residual_discriminator_is_torchvisions_network(blocks, reference):
    ours = ResNetDiscriminator(blocks=blocks, slope=0.0).eval()
    theirs = getattr(torchvision.models, reference)(num_classes=1).eval()
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    assert all(a.shape == b.shape for a, b in pairs)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[:, None], theirs(x))


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("kind", ["dcgan", "resnet"])
def test_every_size_and_ingredient_draws_images_of_that_size(kind, size):
    generator = {"dcgan": DCGANGenerator, "resnet": ResNetGenerator}[kind]
    discriminator = {"dcgan": DCGANDiscriminator, "resnet": ResNetDiscriminator}[kind]
    options = {"size": size, "image_channels": 4, "width": 4, "attention": (16,), "normalise": True}
    g = generator(**options, latent_size=6, skip_z=True, normalise_attention=True)
    d = discriminator(**options, normalise_attention=True)
    assert any(isinstance(m, SelfAttention) for m in g.modules()) and any(
        isinstance(m, SelfAttention) for m in d.modules()
    )
    images = g(torch.randn(3, 6))
    assert images.shape == (3, 4, size, size) and float(images.abs().max()) <= 1
    assert d(images).shape == (3,)


@pytest.mark.parametrize("upsample, flat", [("resize", True), ("transposed", False)])
def test_resized_up_steps_leave_a_flat_image_flat(upsample, flat):
    torch.manual_seed(0)
    generator = ResNetGenerator(width=4, upsample=upsample)
    with torch.no_grad():
        middle = generator.to_image(torch.ones(1, 4, 16, 16))[..., 4:-4, 4:-4]
    assert middle.shape == (1, 3, 24, 24)
    assert (float((middle.amax((2, 3)) - middle.amin((2, 3))).max()) < 1e-6) is flat


def test_skip_z_starts_as_the_plain_network_and_can_be_steered():
    torch.manual_seed(0)
    plain = DCGANGenerator(size=16, width=4, latent_size=5)
    steered = DCGANGenerator(size=16, width=4, latent_size=5, skip_z=True)
    steered.load_state_dict(plain.state_dict(), strict=False)
    z = torch.randn(4, 5)
    assert torch.equal(plain(z), steered(z))
    steered.norms[-1].steer.weight.data.fill_(0.5)
    assert not torch.equal(plain(z), steered(z))


def test_attention_by_loops_and_as_the_identity_at_gamma_zero():
    torch.manual_seed(0)
    module, x = SelfAttention(8).double(), torch.randn(2, 8, 3, 4, dtype=torch.float64)
    assert torch.equal(module(x), x)
    module.gamma.data.fill_(0.7)
    expected = torch.empty_like(x)
    f, g, h = ((layer.weight[:, :, 0, 0] @ x.flatten(2)) for layer in (module.f, module.g, module.h))
    for n in range(2):
        for j in range(12):
            scores = torch.stack([f[n, :, i] @ g[n, :, j] for i in range(12)])
            share = scores.exp() / scores.exp().sum()
            o = module.v.weight[:, :, 0, 0] @ sum(share[i] * h[n, :, i] for i in range(12))
            expected[n, :, j // 4, j % 4] = 0.7 * o + x[n, :, j // 4, j % 4]
    torch.testing.assert_close(module(x), expected)


def test_spectral_normalisation_bounds_every_layer_of_the_attention():
    networks = build_networks(preset("sa_dcgan", "MODEL.GENERATOR.WIDTH", 8, "MODEL.DISCRIMINATOR.WIDTH", 8))
    for network in (networks.generator, networks.discriminator):
        attention = next(m for m in network.modules() if isinstance(m, SelfAttention))
        x = torch.randn(1, attention.f.in_channels, 4, 4)
        for _ in range(30):
            attention(x)
        for layer in (attention.f, attention.g, attention.h, attention.v):
            assert float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2)) == pytest.approx(1.0, rel=0.02)


def test_orthogonal_start_has_orthonormal_filters():
    networks = build_networks(preset("sa_dcgan_ortho", "MODEL.DISCRIMINATOR.WIDTH", 8, "MODEL.GENERATOR.WIDTH", 8))
    rows = next(m for m in networks.discriminator.modules() if isinstance(m, torch.nn.Conv2d)).weight.flatten(1)
    torch.testing.assert_close(rows @ rows.t(), torch.eye(8), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "opts, sentence",
    [
        (["INPUT.SIZE", "60"], "INPUT.SIZE is 60; set it to a power of two"),
        (["MODEL.GENERATOR.CHANNELS", "(8, 8)"], "CHANNELS has 2 entries, but images of 64 pixels .* need 4"),
        (["MODEL.GENERATOR.NAME", "Nope"], "known ones are .DCGANGenerator., .ResNetGenerator."),
        (["MODEL.INIT", "zeros"], "MODEL.INIT is 'zeros'.*'orthogonal'"),
        (["INPUT.CHANNELS", "5"], "INPUT.CHANNELS is 5"),
        (["MODEL.LOGAN.SHARE", "0.0"], "MODEL.LOGAN.SHARE"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(opts, sentence):
    with pytest.raises(UserError, match=sentence):
        build_networks(preset("dcgan", *opts))
