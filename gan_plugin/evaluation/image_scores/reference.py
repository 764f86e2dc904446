"""Features of the real images, computed once."""

import hashlib
import logging
import os
import pickle
from collections.abc import Iterable

import torch

from gan_plugin.files import write_whole

from .features import Extractor, Features, extract

_logger = logging.getLogger(__name__)


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
