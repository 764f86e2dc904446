"""The crops as what a GAN trains on: squares of one size with values in [-1, 1]."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from car_gan.colour import GREEN, MANIFEST, Colour, checked_colour
from gan_plugin.errors import UserError
from gan_plugin.files import read_text

from .matting import LEAST_GREENNESS, greenness
from .pictures import channel_names, on_key, pad_to_square, read_picture, resize
from .split import choose

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# crops up to this many bytes are decoded once and kept
_KEPT_BYTES = 2 << 30


class CropDataset(Dataset):
    """The crops of a folder: `cars.py build`'s, or any folder of pictures.

    A crop is centred in a square of the key colour and resized without aliasing. Item `i` is a (C, size, size) float32
    tensor in [-1, 1]. With 4 channels the last one is alpha, -1 outside the car and 1 inside, and the first three show
    the car over the key colour, blended at its border as alpha says.

    Attributes:
        size, channels: of the items.
        records: of each item its line of the manifest; only "file" and "source_image" for other folders.
        key: the key colour that the crops lie on.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int,
        channels: int = 3,
        flip: bool = False,
        split: str = "train",
        seed: int = 0,
        *,
        held_out: float = 0.1,
        key: Colour = GREEN,
    ) -> None:
        """
        Args:
            folder: with manifest.jsonl, or with pictures at any depth.
            size: of the square in pixels, 8 or more.
            channels: 3 (RGB on the key colour) or 4 (RGBA).
            flip: mirror an item from left to right with chance 1/2, drawn from torch's global random state.
            split: "train", "held_out" or "all"; source images are split as wholes.
            seed: of the split.
            held_out: share of the source images that are held out, in [0, 1).
            key: the key colour; that of the build goes over it.

        Raises:
            UserError: the folder or the split is empty, an argument is out of range, or a picture is broken or has too
                few channels. All pictures are decoded at once if they fit, so it is raised here and not while training.
        """
        self.folder, self.size, self.channels, self.flip = Path(folder), size, channels, flip
        channel_names(channels)
        if size < 8:
            raise UserError(f"The crop size is {size} pixels; set it to 8 or more.")
        every = read_records(self.folder)
        self.key = checked_colour(every[0].get("key", key))
        self.records = [every[i] for i in choose([r["source_image"] for r in every], split, seed, held_out)]
        if not self.records:
            raise UserError(
                f"The split '{split}' of {folder} has no crops ({len(every)} in all); add crops or change the share "
                "that is held out."
            )
        fits = len(self.records) * channels * size * size <= _KEPT_BYTES
        self._kept = torch.stack([self._load(i) for i in range(len(self.records))]) if fits else None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> torch.Tensor:
        crop = self.pixels(index).float().div_(127.5).sub_(1)
        return crop.flip(-1) if self.flip and torch.rand(()) < 0.5 else crop

    def pixels(self, index: int) -> torch.Tensor:
        """Item `index` as (C, size, size) uint8, never mirrored."""
        return self._load(index) if self._kept is None else self._kept[index]

    def fingerprint(self) -> str:
        """SHA-256 of the files of the split, their order and the form of the items, as 64 hexadecimal digits."""
        digest = hashlib.sha256(f"{self.size} {self.channels} {self.key}".encode())
        for record in self.records:
            digest.update(record["file"].encode())
            digest.update(hashlib.sha256((self.folder / record["file"]).read_bytes()).digest())
        return digest.hexdigest()

    def _load(self, index: int) -> torch.Tensor:
        pixels = read_picture(self.folder / self.records[index]["file"], self.channels, self.key)
        if self.channels == 4:
            pixels = on_key(pixels, self.key)
        square = resize(pad_to_square(pixels, self.key), (self.size, self.size))
        return torch.from_numpy(square.transpose(2, 0, 1).copy())


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The manifest of a build, or a line for each picture of another folder, sorted by path.

    Raises:
        UserError: there is no such folder, the manifest is broken, or there is no picture.
    """
    if not folder.is_dir():
        raise UserError(f"The folder of crops {folder} does not exist; make one with cars.py build.")
    manifest = folder / MANIFEST
    if manifest.is_file():
        records = _read_manifest(manifest)
    else:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        names = [path.relative_to(folder).as_posix() for path in files]
        records = [{"file": name, "source_image": name} for name in names]
    if not records:
        raise UserError(f"{folder} holds no crops; make some with cars.py build.")
    return records


def _read_manifest(manifest: Path) -> list[dict[str, Any]]:
    try:
        records = [json.loads(line) for line in read_text(manifest).splitlines() if line.strip()]
        for record in records:
            str(record["file"]), str(record["source_image"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{manifest} is no manifest of crops ({error!r}); build the crops again.") from error
    return records


def has_ground(crops: CropDataset) -> bool:
    """Whether crops lie on a colour that they can be taken off: not with their surroundings, nor on grey."""
    in_context = crops.records[0].get("mode") == "context"
    return not in_context and float(greenness(np.asarray(crops.key), crops.key)) >= LEAST_GREENNESS
