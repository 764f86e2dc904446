"""Layers, parameters and features of the discriminators, counted by hand."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from small_models import BOTH_PLAYERS, build, losses_of, small
from torch import nn

from gan_plugin.errors import UserError
from gan_plugin.modeling.discriminators import (
    BoxFeatureDiscriminator,
    MaskedFeatureDiscriminator,
    PatchMaskDiscriminator,
    PixelMaskDiscriminator,
    ProjectionMaskDiscriminator,
    build_discriminator,
)
from gan_plugin.modeling.discriminators.layers import LoneBatchNorm2d


def layers_of(network):
    convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert all(conv.bias is None for conv in convs)
    return [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.padding[0]) for c in convs]


def norms_of(network):
    return [layer.num_features for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]


def parameters_of(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_masked_feature_discriminator_is_the_papers():
    torch.manual_seed(0)
    network = MaskedFeatureDiscriminator()
    widths = [256, 64, 128, 256, 512, 1024]
    strided = [(a, b, 4, 2, 1) for a, b in zip(widths[:4], widths[1:5], strict=True)]
    # the paper's padding of 1, and 2 more for the 4 cells that a side of 28 lacks
    strided[0] = (256, 64, 4, 2, 3)
    assert layers_of(network) == [*strided, (512, 1024, 2, 1, 0)]
    assert norms_of(network) == widths[2:]
    convs = 256 * 64 * 16 + 64 * 128 * 16 + 128 * 256 * 16 + 256 * 512 * 16 + 512 * 1024 * 4
    assert parameters_of(network) == convs + 2 * (128 + 256 + 512 + 1024) == 5_115_648
    slopes = [layer.negative_slope for layer in network.modules() if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.2] * 5
    # He by fan-out: sqrt(2 / (512 * 16))
    assert network.blocks[3][0].weight.std().item() == pytest.approx((2 / (512 * 16)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("side", [12, 13, 15, 16])
def test_a_smaller_input_is_padded_with_zeros_as_evenly_as_it_goes(side):
    network = MaskedFeatureDiscriminator(in_channels=3, input_size=side, channels=(4, 5, 6, 7), norm="")
    x = torch.randn(2, 3, side, side)
    before = (16 - side) // 2
    after = 16 - side - before
    bare = nn.functional.conv2d(
        nn.functional.pad(x, (before, after) * 2), network.blocks[0][0].weight, stride=2, padding=1
    )
    torch.testing.assert_close(network(x)[1], nn.functional.leaky_relu(bare, 0.2).flatten(1))


def test_its_features_are_the_input_and_every_layer_weighted():
    """Without normalisation, layer by layer with bare convolutions; a side of 32 needs no padding."""
    torch.manual_seed(0)
    network = MaskedFeatureDiscriminator(in_channels=3, input_size=32, channels=(4, 5, 6, 7, 8), norm="")
    x = torch.randn(2, 3, 32, 32)
    expected, out = [x.flatten(1)], x
    for conv, weight in zip([m for m in network.modules() if isinstance(m, nn.Conv2d)], (1, 2, 2, 2, 4), strict=True):
        out = nn.functional.leaky_relu(nn.functional.conv2d(out, conv.weight, None, conv.stride, conv.padding), 0.2)
        expected.append(weight * out.flatten(1))
    features = network(x)
    assert [f.shape[1] for f in features] == [3 * 1024, 4 * 256, 5 * 64, 6 * 16, 7 * 4, 8]
    for ours, theirs in zip(features, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("judges", ["features", "logits"])
def test_one_roi_of_28_cells(judges):
    torch.manual_seed(0)
    network = MaskedFeatureDiscriminator(in_channels=4, channels=(8, 8, 8, 8, 16), judges=judges).train()
    x = torch.randn(1, 4, 28, 28, requires_grad=True)
    result = network(x)
    if judges == "features":
        # zeros around what was seen would dilute the mean distance
        assert torch.equal(result[0], x.flatten(1))
        result = sum(part.sum() for part in result[1:])
    result.sum().backward()
    assert result.isfinite().all()
    # 28 is padded to 32 evenly: no row or column of the input is lost
    assert (x.grad.abs().sum(dim=(0, 1)) > 0).all()


def test_box_discriminator():
    torch.manual_seed(0)
    network = BoxFeatureDiscriminator()
    widths = [256, 64, 128, 256, 512]
    assert layers_of(network) == [(a, b, 3, 2, 1) for a, b in zip(widths, widths[1:], strict=False)] + [
        (512, 1, 1, 1, 0)
    ]
    assert norms_of(network) == [128, 256, 512]
    convs = 9 * (256 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 512
    assert parameters_of(network) == convs + 2 * (128 + 256 + 512)
    for side in (1, 5, 7, 14, 28, 33):
        verdicts = BoxFeatureDiscriminator(in_channels=4, input_size=side, channels=(8, 8))(
            torch.randn(3, 4, side, side)
        )
        assert verdicts.shape == (3,)
    features = BoxFeatureDiscriminator(in_channels=4, channels=(8, 8), judges="features")(torch.randn(1, 4, 7, 7))
    assert [part.shape[1] for part in features] == [4 * 49, 8 * 16, 8 * 4, 1]


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_patch_is_as_wide_as_promised(depth):
    """Measured: the pixels that the verdict in the middle depends on."""
    torch.manual_seed(0)
    network = PatchMaskDiscriminator(input_size=128, channels=(4,) * depth, norm="").double()
    masks = torch.rand(1, 1, 128, 128, dtype=torch.float64, requires_grad=True)
    verdicts = network(masks)
    assert verdicts.shape == (1, 128 // 2**depth, 128 // 2**depth)
    middle = verdicts.shape[-1] // 2
    verdicts[0, middle, middle].backward()
    rows, columns = (masks.grad[0, 0].any(axis).nonzero().flatten() for axis in (1, 0))
    width = 5 * 2**depth - 2
    assert [int(line[-1] - line[0] + 1) for line in (rows, columns)] == [width, width] == [len(rows), len(columns)]


def test_projection_adds_the_inner_product_with_the_classs_embedding():
    """Miyato and Koyama, eq 3: the same weights without and with the class."""
    torch.manual_seed(0)
    options = {"input_size": 16, "channels": (8, 16, 8)}
    network = ProjectionMaskDiscriminator(num_classes=3, **options).eval()
    plain = PixelMaskDiscriminator(**options).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("embedding")})
    masks, classes = torch.randn(4, 1, 16, 16), torch.tensor([0, 2, 1, 2])
    h = masks
    for block in plain.blocks:
        h = block(h)
    products = [(network.embedding.weight[c] * h[i].sum((1, 2))).sum() for i, c in enumerate(classes)]
    torch.testing.assert_close(network(masks, classes), plain(masks) + torch.stack(products))
    assert parameters_of(network) == parameters_of(plain) + 3 * 8


def test_the_class_reaches_a_conditional_discriminator(tiny_cfg, make_inputs):
    model = build(small(tiny_cfg, {"MODEL.GAN.MASK.DISCRIMINATOR": "ProjectionMaskDiscriminator"}))
    losses_of(model, make_inputs(1, instances=1, side=64))["loss_disc_mask"].backward()
    # the only instance is of class 0
    moved = model.adversaries["mask"].discriminator.embedding.weight.grad.abs().sum(1)
    assert moved[0] > 0 and moved[1] == 0


@pytest.mark.parametrize("network", ["PatchMaskDiscriminator", "ProjectionMaskDiscriminator"])
def test_features_are_asked_of_those_who_have_some(tiny_cfg, network):
    cfg = small(tiny_cfg, {"MODEL.GAN.MASK.DISCRIMINATOR": network, "MODEL.GAN.MASK.OBJECTIVE": "MultiLayerL1"})
    with pytest.raises(UserError, match="MODEL.GAN.MASK.OBJECTIVE"):
        build(cfg)


@pytest.mark.parametrize(
    "player, key, value, message",
    [
        ("MASK", "DISCRIMINATOR", "BoxFeatureDiscriminator", "MASK.DISCRIMINATOR.*something else.*PatchMask"),
        ("BOX", "DISCRIMINATOR", "PixelMaskDiscriminator", "BOX.DISCRIMINATOR.*something else.*BoxFeature"),
        ("BOX", "CHANNELS", (), r"BOX.CHANNELS is \(\); set it to one or more"),
        ("BOX", "OBJECTIVE", "Hinch", "BOX.OBJECTIVE is 'Hinch'"),
    ],
)
def test_refusals_name_the_player(tiny_cfg, player, key, value, message):
    cfg = small(tiny_cfg, BOTH_PLAYERS)
    cfg.MODEL.GAN[player][key] = value
    with pytest.raises(UserError, match=message):
        build_discriminator(cfg, player, ShapeSpec(channels=4, height=7, width=7))


def test_batch_norm_of_one_value_uses_what_it_remembers():
    torch.manual_seed(0)
    lone, stock = LoneBatchNorm2d(3), nn.BatchNorm2d(3)
    for batch in (torch.randn(4, 3, 2, 2), torch.randn(1, 3, 2, 1)):
        assert torch.equal(lone(batch), stock(batch))
    single = torch.randn(1, 3, 1, 1)
    assert torch.equal(lone(single), stock.eval()(single))
    assert lone.state_dict().keys() == stock.state_dict().keys()
    assert all(torch.equal(value, stock.state_dict()[name]) for name, value in lone.state_dict().items())
