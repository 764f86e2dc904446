"""Inception V3 of the TensorFlow release, through torch-fidelity, with weights from a file that is looked at first."""

import hashlib
import os
import pickle

import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from gan_plugin.errors import UserError
from gan_plugin.files import first_line

from .builtin import BuiltinExtractor
from .features import Extractor

_FILE = "weights-inception-2015-12-05-6726825d.pth"
_ADVICE = f"name a file like torch-fidelity's {_FILE}, or leave the path empty for the built-in features"
# a first and a last layer tell it from torchvision's model, whose layers have other names and 1000 classes
_SHAPES = {"Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3), "fc.weight": (1008, 2048), "fc.bias": (1008,)}


class InceptionExtractor:
    """The network of FID (Heusel et al. 2017) and IS (Salimans et al. 2016): 2048 features, 1008 unbiased logits."""

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


def build_extractor(weights: str | os.PathLike = "", device: str | torch.device = "cpu") -> Extractor:
    """Inception with the weights of that file, or the built-in network where the path is empty; errors as above."""
    return InceptionExtractor(weights, device) if os.fspath(weights) else BuiltinExtractor(device)


def _validate(path: str) -> str:
    """The SHA-256 of the file, once it is known to hold the weights. torch-fidelity would run any pickle."""
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
    if os.path.basename(path) == _FILE and not digest.startswith("6726825d"):
        raise UserError(f"{path} is damaged: its SHA-256 begins with {digest[:8]}; download it again.")
    return digest
