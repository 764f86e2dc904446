"""The frozen networks of the perceptual losses, and distances of images in their features (thesis 4.4.2)."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import ResNet, resnet50

from coigan.losses.masked import weighted_mean
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import read_safely
from gan_plugin.modeling.timm_weights import AUTO, LITE0, RANDOM, WHEEL, lite0_or_random, load_classifier

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KEY = "LOSS.FEATURES.WEIGHTS"
_OFFLINE_SEED = 2021
_OFFLINE_WIDTHS = (16, 32, 64, 128)
# block of Lite0 that ends a stage -> the standard deviation of its channels over photographs (25 of Penn-Fudan), by
# which each is divided, so that all count alike
_LITE0_STAGES = {0: 6.03, 1: 8.11, 2: 7.37, 4: 6.09}


class FeatureNetwork(nn.Module):
    """A frozen network with four stages of features, in evaluation mode for good.

    Attributes:
        title: what it is, for logs and reports.
    """

    title: str
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, title: str, mean: Sequence[float] = _MEAN, std: Sequence[float] = _STD) -> None:
        """
        Args:
            title: see above.
            mean, std: of the colours in [0, 1] that the weights were trained with.
        """
        super().__init__()
        self.title = title
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def freeze(self) -> "FeatureNetwork":
        """Itself, never to learn again."""
        return self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stays in evaluation mode, whatever its parent does."""
        return super().train(False)

    def stages(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Features of normalised images."""
        raise TypeError("a feature network says what its stages are")

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) in [0, 1] -> four tensors (N, C, H', W')."""
        return self.stages((images - self.mean) / self.std)


class ResNetFeatures(FeatureNetwork):
    """The four stages of a ResNet-50 whose last two are dilated instead of strided, down to 1/8.

    Takes torchvision's ImageNet weights, and those of MIT's scene parsing on ADE20K with their stem of three 3x3
    convolutions, which LaMa and COIGAN use.
    """

    def __init__(self, weights: str, sha256: str = "") -> None:
        """
        Args:
            weights: path of a state dict, read without running any code in it.
            sha256: of the file, "" to take it as it is.

        Raises:
            UserError: the file is missing, not what the checksum says, or no ResNet-50.
        """
        digest = checked_digest(weights, sha256)
        super().__init__(f"ResNet-50 of {Path(weights).name} (SHA-256 {digest[:12]})")
        state = {key: value for key, value in _read_state(weights).items() if not key.startswith("fc.")}
        network = resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
        network.fc = nn.Identity()
        stem = [network.conv1, network.bn1, nn.ReLU()]
        if "conv3.weight" in state:
            stem = _deepen(network)
        with as_user_error(f"{weights} is no ResNet-50 that we know", f"name another file in {_KEY}", RuntimeError):
            network.load_state_dict(state, strict=True)
        self.stem = nn.Sequential(*stem, network.maxpool)
        self.layers = nn.ModuleList([network.layer1, network.layer2, network.layer3, network.layer4])
        self.freeze()

    def stages(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) -> 256, 512, 1024 and 2048 channels at 1/4, 1/8, 1/8 and 1/8."""
        inputs, outputs = self.stem(inputs), []
        for layer in self.layers:
            inputs = layer(inputs)
            outputs.append(inputs)
        return outputs


def _deepen(network: ResNet) -> list[nn.Module]:
    """Give `network` the stem of three convolutions in place of its one; returns the stem's layers in order."""
    layers: list[nn.Module] = []
    for number, (before, after, stride) in enumerate([(3, 64, 2), (64, 64, 1), (64, 128, 1)], start=1):
        conv, norm = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        setattr(network, f"conv{number}", conv)
        setattr(network, f"bn{number}", norm)
        layers += [conv, norm, nn.ReLU()]
    network.layer1[0].conv1 = nn.Conv2d(128, 64, 1, bias=False)
    shortcut = network.layer1[0].downsample
    if shortcut is not None:
        shortcut[0] = nn.Conv2d(128, 256, 1, bias=False)
    return layers


def checked_digest(path: str, sha256: str = "", key: str = _KEY) -> str:
    """The SHA-256 of a file of weights, in hexadecimal.

    Args:
        path: of the file.
        sha256: what it has to be, at least its first 8 digits; "" for anything.
        key: the config key that names the file, for sentences about it.

    Raises:
        UserError: the file is missing, or has another checksum.
    """
    with as_user_error(f"The weights {path} cannot be read", f"check {key}", OSError), open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    if sha256 and (len(sha256) < 8 or not digest.startswith(sha256.lower())):
        raise UserError(f"{path} has the SHA-256 {digest}, not {sha256}; download it again or correct {key}.")
    return digest


def _read_state(path: str) -> dict[str, torch.Tensor]:
    state = read_safely(path, advice=f"name a state dict saved by torch in {_KEY}")
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds no dictionary of weights; name another file in {_KEY}.")
    return state


class Lite0Features(FeatureNetwork):
    """The stages of EfficientNet-Lite0 with ImageNet's weights that end at 1/2, 1/4, 1/8 and 1/16 of the side.

    The last stage, at 1/32, is left out: on a tile of 64 pixels it has 2 x 2 places, too few for a mask. Each stage is
    divided by a fixed number, so that its channels vary by about 1 over photographs.
    """

    def __init__(self) -> None:
        """
        Raises:
            UserError: timm or the wheel with the weights is not installed.
        """
        super().__init__("EfficientNet-Lite0 (ImageNet)", (0.5,) * 3, (0.5,) * 3)
        network: Any = load_classifier(LITE0, WHEEL)
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.layers = nn.ModuleList(network.blocks[: max(_LITE0_STAGES) + 1])
        self.freeze()

    def stages(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) -> 16, 24, 40 and 112 channels at 1/2, 1/4, 1/8 and 1/16."""
        inputs, outputs = self.stem(inputs), []
        for number, layer in enumerate(self.layers):
            inputs = layer(inputs)
            if number in _LITE0_STAGES:
                outputs.append(inputs / _LITE0_STAGES[number])
        return outputs


class OfflineFeatures(FeatureNetwork):
    """Four strided convolutions with fixed random orthogonal weights, for machines without any weights.

    Its distances tell images apart by edges and texture at four scales; they know nothing of what is in them.
    """

    def __init__(self) -> None:
        super().__init__("random convolutions (no pretrained weights)")
        generator = torch.Generator().manual_seed(_OFFLINE_SEED)
        self.layers = nn.ModuleList()
        for before, after in zip((3, *_OFFLINE_WIDTHS), _OFFLINE_WIDTHS, strict=False):
            conv = nn.Conv2d(before, after, 3, 2, 1, bias=False)
            # He's gain keeps the scale of the features from layer to layer.
            nn.init.orthogonal_(conv.weight, gain=math.sqrt(2), generator=generator)
            self.layers.append(conv)
        self.freeze()

    def stages(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) -> 16, 32, 64 and 128 channels at 1/2, 1/4, 1/8 and 1/16."""
        outputs = []
        for layer in self.layers:
            inputs = layer(inputs).relu()
            outputs.append(inputs)
        return outputs


def build_feature_network(weights: str = "", sha256: str = "", network: str = AUTO) -> FeatureNetwork:
    """`ResNetFeatures` of a file, or what `network` says if `weights` is "".

    Args:
        weights, sha256: see ResNetFeatures.
        network: "lite0", "random" for OfflineFeatures, or "auto": Lite0 where it is installed, and else random.

    Raises:
        UserError: see ResNetFeatures; or `network` is none of these, or "lite0", which is not installed.
    """
    if weights:
        return ResNetFeatures(weights, sha256)
    return OfflineFeatures() if lite0_or_random(network, "LOSS.FEATURES.NETWORK") == RANDOM else Lite0Features()


Features = Sequence[torch.Tensor]


def smooth_masked_perceptual(fake: Features, base: Features, weights: torch.Tensor) -> torch.Tensor:
    """mean over layers of sum(W_l * sum_c (fake - base)^2) / sum(W_l) (thesis 4.4.2).

    It sums over channels, so its scale is about their number times that of `plain_perceptual`, as in the source.

    Args:
        fake, base: of each layer (N, C_l, H_l, W_l).
        weights: (N, 1, H, W) of `weight_map`, resized to each layer.
    """
    values = []
    for ours, theirs in zip(fake, base, strict=True):
        resized = F.interpolate(weights, size=ours.shape[-2:], mode="bilinear", align_corners=True)
        values.append(weighted_mean((ours - theirs).square().sum(1, keepdim=True), resized))
    return torch.stack(values).mean()


def plain_perceptual(fake: Features, base: Features, mean_over_layers: bool = False) -> torch.Tensor:
    """The mean squared difference of each layer, summed over layers (LaMa) or their mean (thesis equation 2.15)."""
    values = torch.stack([F.mse_loss(ours, theirs) for ours, theirs in zip(fake, base, strict=True)])
    return values.mean() if mean_over_layers else values.sum()


def feature_matching(fake: Features, real: Features) -> torch.Tensor:
    """Mean over layers of the mean absolute difference (pix2pixHD: Wang et al. 2018, arXiv 1711.11585, equation 4)."""
    return torch.stack([F.l1_loss(ours, theirs) for ours, theirs in zip(fake, real, strict=True)]).mean()
