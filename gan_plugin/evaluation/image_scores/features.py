"""Sets of images as sets of feature vectors, which carry the name of the network that made them."""

import hashlib
import logging
import os
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

_logger = logging.getLogger(__name__)


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
    write_whole(path, lambda file: torch.save(content, file), "Free some disk space, or name another cache folder.")
    return features
