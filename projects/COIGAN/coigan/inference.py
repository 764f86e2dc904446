"""A trained generator: read from a file, and at work on images of any size, tile by tile."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from yacs.config import CfgNode

from coigan.batch import blend
from coigan.config import check_config, get_cfg
from coigan.modeling.build import build_generator, choose_device
from gan_plugin.config_files import read_yaml
from gan_plugin.engine.export import find_average, is_state_dict
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import check_exists, read_safely, write_whole

_PREFIX = "generator."
_KIND = "coigan-generator-1"


@dataclass(frozen=True)
class TrainedGenerator:
    """Weights with all that is needed to use them.

    Attributes:
        weights: of the generator alone, on the CPU.
        cfg: of its run.
        digest: SHA-256 of the weights: names, shapes and values in order, in whatever file they lie.
        source: the file, and whether it is the average, in words.
    """

    weights: Mapping[str, torch.Tensor]
    cfg: CfgNode
    digest: str
    source: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask channels."""
        return tuple(self.cfg.INPUT.CLASSES)

    def build(self) -> torch.nn.Module:
        """The generator on the CPU in evaluation mode, frozen.

        Raises:
            UserError: the weights do not fit the config.
        """
        generator = build_generator(self.cfg, len(self.classes))
        with as_user_error(f"{self.source} does not fit its config", "name the run's own config.yaml", RuntimeError):
            generator.load_state_dict(dict(self.weights), strict=True)
        # Batch statistics of what happens to be in a batch would change the picture.
        return generator.requires_grad_(False).eval()


def read_trained(path: str | Path, config: str = "", average: bool = True) -> TrainedGenerator:
    """The generator in `path`, without running any code that is in the file.

    Args:
        path: a checkpoint of a run (`model_*.pth`), or what `write_trained` wrote.
        config: the run's config.yaml; "" for the one beside a checkpoint.
        average: take the moving average where the file has one.

    Raises:
        UserError: the file or its config is missing or no generator.
    """
    path = Path(path)
    check_exists(path, "The file of weights", "name a model_*.pth of a run or an exported generator")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    state = read_safely(path)
    weights = state.get("model") if isinstance(state, dict) else None
    if not is_state_dict(weights):
        raise UserError(f"{path} holds no weights; name a model_*.pth of a run or an exported generator.")
    if state.get("kind") == _KIND:
        return _trained(weights, parse_config(state["config"], str(path)), str(path))
    source = str(path)
    if any(name.startswith(_PREFIX) for name in weights):
        averaged = find_average(state) if average else None
        if averaged:
            weights, source = averaged, f"{path} (moving average)"
        else:
            weights = {name[len(_PREFIX) :]: value for name, value in weights.items() if name.startswith(_PREFIX)}
    file = Path(config) if config else path.parent / "config.yaml"
    with as_user_error(f"The config {file} cannot be read", "name it with --config-file", OSError):
        text = file.read_text(encoding="utf-8")
    return _trained(weights, parse_config(text, str(file)), source)


def _read_safetensors(path: Path) -> TrainedGenerator:
    with as_user_error(
        f"{path} cannot be read as safetensors", "export it again", OSError, safetensors.SafetensorError
    ):
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        weights = safetensors.torch.load_file(str(path))
    if metadata.get("kind") != _KIND:
        raise UserError(f"{path} is no exported generator; make one with inpaint.py export.")
    return _trained(weights, parse_config(metadata["config"], str(path)), str(path))


def _trained(weights: Mapping[str, torch.Tensor], cfg: CfgNode, source: str) -> TrainedGenerator:
    if not cfg.INPUT.CLASSES:
        raise UserError(f"The config of {source} names no classes (INPUT.CLASSES); name the run's own config.yaml.")
    return TrainedGenerator(weights, cfg, digest_of(weights), source)


def parse_config(text: str, source: str) -> CfgNode:
    """The config in a run's config.yaml.

    Raises:
        UserError: it is none of COIGAN.
    """
    cfg = get_cfg()
    content = read_yaml(text, f"The config of {source}")
    try:
        cfg.merge_from_other_cfg(CfgNode(content))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"The config of {source} is none of COIGAN: {' '.join(str(error).split())}.") from error
    check_config(cfg)
    cfg.freeze()
    return cfg


def digest_of(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, sorted by name."""
    sum_ = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        sum_.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        sum_.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return sum_.hexdigest()


def write_trained(trained: TrainedGenerator, out: str | os.PathLike) -> None:
    """Write weights and config as `out`: `.safetensors` of bare tensors, or `.pth`; no optimizer, no judge.

    Raises:
        UserError: it cannot be written, or has another ending.
    """
    if not os.fspath(out).endswith((".pth", ".safetensors")):
        raise UserError(f"{os.fspath(out)} ends in neither .pth nor .safetensors; name such a file.")
    weights = {name: value.detach().clone().contiguous() for name, value in trained.weights.items()}
    config = trained.cfg.dump()
    if os.fspath(out).endswith(".safetensors"):
        content = safetensors.torch.save(weights, metadata={"format": "pt", "kind": _KIND, "config": config})
        write_whole(out, content)
    else:
        write_whole(out, lambda file: torch.save({"model": weights, "kind": _KIND, "config": config}, file))


# clean masks (n, H, W) and a random generator -> what the generator is shown for them
Noise = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


class Inpainter:
    """Paints images of any size: tile by tile, in evaluation mode, the same for the same seed.

    Attributes:
        classes: names of the mask channels.
        digest: SHA-256 of the weights, for provenance.
    """

    def __init__(self, trained: TrainedGenerator, noise: Noise, device: str = "", overlap: int = 32) -> None:
        """
        Args:
            trained: weights and config.
            noise: the noise in masks that training used.
            device: "" for a GPU where there is one.
            overlap: least width of a seam between tiles, in pixels.

        Raises:
            UserError: the weights do not fit their config.
        """
        self.trained, self.classes, self.digest = trained, trained.classes, trained.digest
        self.tile: int = trained.cfg.INPUT.SIZE
        self._noise, self._device = noise, choose_device(device)
        self._overlap = min(overlap, self.tile // 2)
        self._margin = trained.cfg.MODEL.GENERATOR.BLEND_MARGIN
        self._generator = trained.build().to(self._device)

    def facts(self, base: str, seed: int, strength: float, margin: int | None) -> dict[str, Any]:
        """What belongs beside a painted picture: how it was made of the picture named `base`, and that it was made."""
        how = {"base": base, "seed": seed, "strength": strength, "margin": margin}
        return {**how, "weights_sha256": self.digest, "synthetic": True}

    def paint(
        self, image: np.ndarray, masks: np.ndarray, seed: int = 0, strength: float = 1.0, margin: int | None = None
    ) -> np.ndarray:
        """`image` with a defect under each mask; a grey image stays grey.

        Args:
            image: (H, W, 3) uint8, RGB.
            masks: (n, H, W), a channel for each class; nonzero asks for a defect.
            seed: of the noise in the masks, and of the latent where the generator has one.
            strength: how far to go from the image to the generator's result: 0 nothing, 1 all, up to 2 beyond it.
            margin: the image stays as it is further than so many pixels from a mask; -1 lets all change; None for
                MODEL.GENERATOR.BLEND_MARGIN of the training.

        Returns:
            (H, W, 3) uint8.

        Raises:
            UserError: image and masks do not fit each other or the generator.
        """
        if image.ndim != 3 or image.shape[2] != 3 or masks.shape != (len(self.classes), *image.shape[:2]):
            raise UserError(
                f"Masks of shape {masks.shape} do not fit an image of shape {image.shape}; there are "
                f"{len(self.classes)} classes."
            )
        draw = torch.Generator().manual_seed(seed)
        clean = torch.from_numpy(np.ascontiguousarray(masks != 0)).float()
        base = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
        latent = torch.randn(1, cast(int, self._generator.latent_size), generator=draw)
        asked = torch.cat([clean, self._noise(clean, draw)])

        def paint(tiles: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
            noisy = parts[:, len(clean) :]
            inputs = torch.cat([tiles, noisy], dim=1).to(self._device)
            with torch.no_grad():
                return self._generator(inputs, latent.expand(len(inputs), -1).to(self._device)).float().cpu()

        painted = paint_large(paint, base, asked, self.tile, self._overlap)
        if (image == image[..., :1]).all():
            # equal channels are of one sensor; coloured fringes of the generator would give its defects away
            painted = painted.mean(0, keepdim=True).expand_as(painted)
        painted = blend(painted[None], base[None], clean[None], self._margin if margin is None else margin)[0]
        mixed = (base + strength * (painted - base)).clamp(0, 1)
        result = (mixed * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        # What strength and blend leave alone is the image itself, not a rounding of it.
        return np.where((painted == base).all(0).numpy()[..., None], image, result)


# (N, 3, T, T) images and (N, n, T, T) masks -> (N, 3, T, T)
PaintTiles = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles of side `tile` begin, so that neighbours share at least `overlap` pixels and all of `length` is seen.

    Raises:
        UserError: the overlap leaves no step.
    """
    if not 0 <= overlap < tile:
        raise UserError(f"Tiles of {tile} pixels cannot overlap by {overlap}; choose 0 or more, less than the tile.")
    if length <= tile:
        return [0]
    steps = -(-(length - tile) // (tile - overlap))
    return [round(place * (length - tile) / steps) for place in range(steps + 1)]


def paint_large(
    paint: PaintTiles, image: torch.Tensor, masks: torch.Tensor, tile: int, overlap: int = 32, batch: int = 8
) -> torch.Tensor:
    """`image` with what `paint` makes of each tile; where tiles overlap they fade into each other.

    Tiles without a mask keep the image's own pixels and are not computed.

    Args:
        paint: paints tiles.
        image: (3, H, W) in [0, 1], any size.
        masks: (n, H, W).
        tile: side of a tile.
        overlap: least width of a seam.
        batch: tiles at a time.

    Returns:
        (3, H, W).
    """
    height, width = image.shape[1:]
    # The smallest reflection that fills a tile; a border of one pixel cannot be reflected further than it is wide.
    bottom, right = max(0, tile - height), max(0, tile - width)
    padded, cover = _pad(image, bottom, right), F.pad(masks, (0, right, 0, bottom))
    total = torch.zeros_like(padded)
    weights = torch.zeros_like(padded[:1])
    for places in _chunks(_places(padded.shape[1], padded.shape[2], tile, overlap), batch):
        tiles = torch.stack([padded[:, y : y + tile, x : x + tile] for y, x in places])
        parts = torch.stack([cover[:, y : y + tile, x : x + tile] for y, x in places])
        asked = parts.flatten(1).amax(1) > 0
        results = tiles.clone()
        if asked.any():
            results[asked] = paint(tiles[asked], parts[asked]).to(results.dtype)
        window = _window(tile, overlap).to(padded)
        for (y, x), result in zip(places, results, strict=True):
            total[:, y : y + tile, x : x + tile] += window * result
            weights[:, y : y + tile, x : x + tile] += window
    return (total / weights)[:, :height, :width]


def _pad(image: torch.Tensor, bottom: int, right: int) -> torch.Tensor:
    while bottom or right:
        down, over = min(bottom, image.shape[1] - 1), min(right, image.shape[2] - 1)
        if not (down or over):
            return F.pad(image[None], (0, right, 0, bottom), mode="replicate")[0]
        image = F.pad(image[None], (0, over, 0, down), mode="reflect")[0]
        bottom, right = bottom - down, right - over
    return image


def _places(height: int, width: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    return [(y, x) for y in starts(height, tile, overlap) for x in starts(width, tile, overlap)]


def _chunks(places: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    for first in range(0, len(places), size):
        yield places[first : first + size]


def _window(tile: int, overlap: int) -> torch.Tensor:
    """(1, T, T): 1 inside, falling towards the border over `overlap` pixels, never 0."""
    distance = torch.minimum(torch.arange(1, tile + 1), torch.arange(tile, 0, -1)).float()
    ramp = (distance / (overlap + 1)).clamp(max=1)
    return (ramp[:, None] * ramp[None, :])[None]
