"""The thesis' discriminator against the numbers printed there."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from gan_plugin.errors import UserError
from gan_plugin.modeling.discriminators import PixelMaskDiscriminator, build_discriminator


def test_parameters_layers_and_init_are_the_thesis_ones():
    torch.manual_seed(0)
    network = PixelMaskDiscriminator()
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_412_480
    layers = list(network.modules())
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [64, 128, 128, 256, 512, 1024, 1]
    assert [(conv.kernel_size[0], conv.stride[0], conv.padding[0]) for conv in convs] == [(4, 2, 1)] * 6 + [(2, 1, 0)]
    assert all(conv.bias is None for conv in convs)
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [128, 128, 256, 512, 1024]
    assert [layer.negative_slope for layer in layers if isinstance(layer, nn.LeakyReLU)] == [0.2] * 6
    assert convs[4].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert norms[-1].weight.mean().item() == pytest.approx(1, abs=0.005)
    assert norms[-1].weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert network(torch.zeros(2, 1, 128, 128)).shape == (2,)


def test_size_must_fit_channels():
    with pytest.raises(UserError, match="64, but 6 CHANNELS need 128"):
        PixelMaskDiscriminator(input_size=64)


def test_unknown_discriminator_lists_the_known(tiny_cfg):
    tiny_cfg.MODEL.GAN.MASK.DISCRIMINATOR = "Critic"
    with pytest.raises(UserError, match="'Critic'.*PixelMaskDiscriminator"):
        build_discriminator(tiny_cfg, "MASK", ShapeSpec(channels=1, height=32, width=32))
