"""Base images, masks and results side by side."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from coigan.data.images import encode_png
from gan_plugin.data.pictures import read_rgb

# One colour a class: Okabe and Ito's, which colour-blind readers tell apart.
CLASS_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0))
_GAP = 2


def paint_masks(images: torch.Tensor, masks: torch.Tensor, strength: float = 0.6) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1] under half-transparent masks (N, n, H, W), one colour a class."""
    painted = images.clone()
    for number in range(masks.shape[1]):
        colour = torch.tensor(CLASS_COLOURS[number % len(CLASS_COLOURS)], device=images.device) / 255
        cover = strength * masks[:, number : number + 1].clamp(0, 1)
        painted = painted * (1 - cover) + colour.view(1, 3, 1, 1) * cover
    return painted


def comparison_grid(
    base: torch.Tensor, masks: torch.Tensor, images: torch.Tensor, more: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """A row for each sample: base image, its masks over it, the result, and more, with white gaps.

    Args:
        base, images: (N, 3, H, W) in [0, 1].
        masks: (N, n, H, W).
        more: further columns, as `images`.

    Returns:
        (3, N (H + 2) - 2, k (W + 2) - 2) in [0, 1], k columns.
    """
    columns = [base, paint_masks(base, masks), images.clamp(0, 1), *more]
    framed = [F.pad(column, (0, _GAP, 0, _GAP), value=1.0) for column in columns]
    return torch.cat(list(torch.cat(framed, dim=3)), dim=1)[:, :-_GAP, :-_GAP]


def detail_columns(noisy_masks: torch.Tensor, fake: torch.Tensor, real: torch.Tensor) -> list[torch.Tensor]:
    """What both players see of the defects, (N, 3, H, W) each: masks with their noise, painted and real defects.

    Args:
        noisy_masks: (N, n, H, W), which the generator sees.
        fake, real: canvases of all classes, (N, 3n, H, W), which the discriminator sees.
    """
    together = [canvases.unflatten(1, (-1, 3)).sum(1).clamp(0, 1) for canvases in (fake, real)]
    return [paint_masks(torch.zeros_like(together[0]), noisy_masks, strength=1.0), *together]


_SIDE = 192


def outlined(folder: str | Path, count: int = 20) -> list[tuple[bytes, str]]:
    """The first `count` images of a set that `write_augmented` wrote, as PNG, each with a caption.

    Small images are enlarged, pixel by pixel, so that outlines of one pixel can be seen.
    """
    folder = Path(folder)
    content = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    pictures = []
    for image in content["images"][:count]:
        objects = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
        pixels = read_rgb(folder / "images" / image["file_name"])
        masks = [coco_mask.decode(entry["segmentation"]) for entry in objects]
        drawn = draw_outlines(pixels, masks, [entry["category_id"] - 1 for entry in objects])
        classes = ", ".join(sorted({names[entry["category_id"]] for entry in objects}))
        pictures.append((encode_png(drawn), f"{image['file_name']}: class {classes}"))
    return pictures


def draw_outlines(pixels: np.ndarray, masks: Sequence[np.ndarray], labels: Sequence[int]) -> np.ndarray:
    """(H, W, 3) pixels, enlarged by a whole number, with the outline of each mask in its class's colour."""
    zoom = max(1, _SIDE // max(pixels.shape[:2]))
    picture = np.ascontiguousarray(pixels.repeat(zoom, 0).repeat(zoom, 1))
    for mask, label in zip(masks, labels, strict=True):
        large = np.ascontiguousarray(mask.astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1))
        contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, CLASS_COLOURS[label % len(CLASS_COLOURS)], 1)
    return picture
