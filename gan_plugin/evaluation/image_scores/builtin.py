"""A feature network that needs no file: for runs without Inception's weights, and for tests."""

import numpy as np
import torch
import torch.nn.functional as F

_SIDE = 64
_SEED = 2020
# (channels in, channels out, kernel); each layer halves the side
_LAYERS = ((3, 16, 5), (16, 32, 4), (32, 20, 4))
_CLASSES = 10
# a spread that gives distances of a few units, and logits of about one
_SCALE = 10.0
_LOGIT_SCALE = 0.8


class BuiltinExtractor:
    """Three convolutions with fixed random weights; 128 features are means over the image and its quarters.

    Random convolutional features order distributions of images sensibly, but their scores compare with nothing that
    Inception gives; hence the name in every result. The weights come from numpy's legacy generator, whose stream is
    frozen, so they are the same on every machine.
    """

    name = "builtin-random-conv-128-v1 (not Inception)"
    label = "builtin"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        """
        Args:
            device: where to compute.
        """
        self._device = torch.device(device)
        random = np.random.RandomState(_SEED)
        self._kernels = []
        for channels_in, channels_out, side in _LAYERS:
            kernel = random.standard_normal((channels_out, channels_in, side, side))
            kernel -= kernel.mean((1, 2, 3), keepdims=True) * 0.5
            kernel *= np.sqrt(2 / (channels_in * side * side))
            self._kernels.append(torch.from_numpy(kernel.astype(np.float32)).to(self._device))
        width = _LAYERS[0][1] + _LAYERS[1][1] + 4 * _LAYERS[2][1]
        classifier = random.standard_normal((width, _CLASSES)) * _LOGIT_SCALE / np.sqrt(width)
        self._classifier = torch.from_numpy(classifier.astype(np.float32)).to(self._device)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) bytes -> (N, 128) and (N, 10)."""
        x = images.to(self._device).float() / 127.5 - 1
        if x.shape[-2:] != (_SIDE, _SIDE):
            x = F.interpolate(x, (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False)
        pooled = []
        for number, kernel in enumerate(self._kernels, start=1):
            x = F.leaky_relu(F.conv2d(x, kernel, stride=2, padding=1), 0.2)
            parts = 2 if number == len(self._kernels) else 1
            pooled.append(F.adaptive_avg_pool2d(x, parts).flatten(1))
        features = _SCALE * torch.cat(pooled, dim=1)
        return features, features @ self._classifier
