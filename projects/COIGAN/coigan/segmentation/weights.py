"""A trained segmenter in a file."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from gan_plugin.engine.export import is_state_dict
from gan_plugin.errors import UserError
from gan_plugin.files import read_safely, write_whole

from .networks import build_segmenter
from .training import SegmentOptions

_KIND = "coigan-segmenter-1"


@dataclass(frozen=True)
class TrainedSegmenter:
    """What calls pixels defect or background.

    Attributes:
        network: frozen, in evaluation mode, on the device of `options`.
        options: of its training; `threshold` divides defect from background.
        digest: SHA-256 of the file.
    """

    network: nn.Module
    options: SegmentOptions
    digest: str

    @torch.no_grad()
    def find(self, image: torch.Tensor) -> torch.Tensor:
        """(3, H, W) in [0, 1] -> (H, W) bool on the CPU, where it sees a defect."""
        logits = self.network(image[None].to(self.options.device)).float()
        return (logits.sigmoid() > self.options.threshold)[0].cpu()


def write_segmenter(path: str | Path, network: nn.Module, options: SegmentOptions) -> None:
    """Write weights and options.

    Raises:
        UserError: the file cannot be written.
    """
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    content = {"kind": _KIND, "model": state, "options": asdict(options)}
    write_whole(path, lambda file: torch.save(content, file), "Choose another place or free some disk space.")


def read_segmenter(path: str | Path, device: str) -> TrainedSegmenter:
    """What `write_segmenter` has written, without running any code that is in the file.

    Raises:
        UserError: the file is missing or no segmenter.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"The segmenter {path} does not exist; inpaint.py segment leaves one for each seed.")
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    content = read_safely(path, packed)
    if not isinstance(content, dict) or content.get("kind") != _KIND or not is_state_dict(content.get("model")):
        raise UserError(f"{path} is no segmenter; name a segmenter_seed*.pth that inpaint.py segment has written.")
    try:
        options = replace(SegmentOptions(**content["options"]), device=device)
        network = build_segmenter(options.model)
        network.load_state_dict(content["model"], strict=True)
    except (TypeError, KeyError, RuntimeError) as error:
        raise UserError(f"{path} does not fit this version of the segmenters; train it again.") from error
    digest = hashlib.sha256(packed).hexdigest()
    return TrainedSegmenter(network.to(device).requires_grad_(False).eval(), options, digest)
