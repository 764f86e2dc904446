"""What the page works on: base images, the generator, and a folder for what is saved."""

import base64
import binascii
import io
import json
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from coigan.data.images import encode_png
from gan_plugin.data.masks import understood
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

_LONGEST = 4096


class Paints(Protocol):
    """What the page needs of a generator; `coigan.inference.Inpainter` has it."""

    classes: tuple[str, ...]

    def paint(self, image: np.ndarray, masks: np.ndarray, seed: int, strength: float) -> np.ndarray:
        """(H, W, 3) bytes and (n, H, W) masks -> (H, W, 3) bytes."""


class Session:
    """The state of the one page that is open; requests may come in several threads."""

    def __init__(self, inpainter: Paints, bases: Sequence[Path], out: Path) -> None:
        """
        Args:
            inpainter: paints.
            bases: images to start from, in turn.
            out: folder for saved samples, made when the first is saved.

        Raises:
            UserError: there is no base image.
        """
        if not bases:
            raise UserError("There is no base image to paint on; name an image or a folder with --images.")
        self._inpainter, self._bases, self._out = inpainter, list(bases), out
        self._lock = threading.Lock()
        self._place = 0
        self._image = read_rgb(self._bases[0])

    def info(self) -> dict[str, Any]:
        """Names of the classes, and name and size of the base image."""
        height, width = self._image.shape[:2]
        name = self._bases[self._place].name
        return {"classes": list(self._inpainter.classes), "width": width, "height": height, "name": name}

    def image(self) -> bytes:
        """The base image as PNG."""
        return encode_png(self._image)

    def next_image(self) -> dict[str, Any]:
        """Go on to the next base image; returns `info`."""
        with self._lock:
            self._place = (self._place + 1) % len(self._bases)
            self._image = read_rgb(self._bases[self._place])
        return self.info()

    def infer(self, request: dict[str, Any]) -> bytes:
        """The painted image as PNG; see `_read_request` for the request.

        Raises:
            UserError: the request makes no sense.
        """
        masks, seed, strength = self._read_request(request)
        with self._lock:
            return encode_png(self._inpainter.paint(self._image, masks, seed, strength))

    def save(self, request: dict[str, Any]) -> dict[str, Any]:
        """Paint once more and save input, masks, output and what made them; returns the names of the files.

        Raises:
            UserError: the request makes no sense, or the files cannot be written.
        """
        masks, seed, strength = self._read_request(request)
        with self._lock:
            result = self._inpainter.paint(self._image, masks, seed, strength)
            self._out.mkdir(parents=True, exist_ok=True)
            number = sum(1 for _ in self._out.glob("sample_*.json"))
            stem = f"sample_{number:05d}"
            files = {f"{stem}_input.png": encode_png(self._image), f"{stem}_output.png": encode_png(result)}
            # by number, since a class's name may hold what a file's may not
            for place, mask in enumerate(masks):
                files[f"{stem}_mask_{place}.png"] = encode_png(mask.astype(np.uint8) * 255)
            made = {"seed": seed, "strength": strength, "classes": list(self._inpainter.classes), "synthetic": True}
            facts = {"base": self._bases[self._place].name, **made}
            files[f"{stem}.json"] = json.dumps(facts, indent=1).encode()
            for name, content in files.items():
                write_whole(self._out / name, partial(_write, content))
        return {"folder": str(self._out), "files": sorted(files)}

    def _read_request(self, request: dict[str, Any]) -> tuple[np.ndarray, int, float]:
        """(n, H, W) masks, seed and strength of {"masks": [PNG as base64 or data URL, ...], "seed", "strength"}."""
        height, width = self._image.shape[:2]
        pictures = request.get("masks")
        classes = len(self._inpainter.classes)
        if not isinstance(pictures, list) or len(pictures) != classes:
            raise UserError(f"The request needs {classes} masks, one for each class.")
        masks = np.stack([_read_mask(picture, height, width) for picture in pictures])
        try:
            seed, strength = int(request.get("seed", 0)), float(request.get("strength", 1.0))
        except (TypeError, ValueError) as error:
            raise UserError("Seed and strength must be numbers.") from error
        if not (0 <= seed < 2**63 and 0 <= strength <= 2):
            raise UserError("The seed must be 0 or more, the strength between 0 and 2.")
        return masks, seed, strength


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _read_mask(picture: object, height: int, width: int) -> np.ndarray:
    try:
        text = str(picture).rsplit(",", 1)[-1]
        image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
        if max(image.size) > _LONGEST:
            raise ValueError("too large")
        mask, _ = understood(image)
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UserError(f"A mask is no PNG as base64, or {error}.") from error
    if mask.shape != (height, width):
        raise UserError(f"A mask has {mask.shape[1]}x{mask.shape[0]} pixels, the image {width}x{height}.")
    return mask
