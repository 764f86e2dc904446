"""The Penn-Fudan pedestrian data set (170 images, one class) as three Detectron2 data sets.

Source: https://www.cis.upenn.edu/~jshi/ped_html/ (Wang, Shi, Song, Shen: Object Detection Combining Recognition and
Segmentation, ACCV 2007). `PedMasks/<name>_mask.png` is an index image: 0 is background, 1..n are the pedestrians.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gan_plugin.data.masks import annotation_of, parts_of
from gan_plugin.data.pictures import image_problem, read_header
from gan_plugin.data.subsets import draw_subsets, offer_registration
from gan_plugin.errors import UserError

SPLITS = ("train_a", "train_b", "val")
DEFAULT_SIZES = (75, 75, 20)
_DOWNLOAD = "https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip"


def split_penn_fudan(names: Iterable[str], seed: int, sizes: Sequence[int] = DEFAULT_SIZES) -> dict[str, list[str]]:
    """Split image names into train_a, train_b and val; every name is used exactly once.

    `sizes` holds for the full 170 images; with another number of names the three are scaled in proportion, by largest
    remainder. The result depends on the set of names and the seed alone.

    Raises:
        UserError: a part that was asked for would be empty.
    """
    return draw_subsets(names, seed, dict(zip(SPLITS, sizes, strict=True)), use_all=True)


def register_penn_fudan(
    root: str | Path, seed: int = 0, sizes: Sequence[int] = DEFAULT_SIZES, prefix: str = "penn_fudan"
) -> list[str]:
    """Register penn_fudan_train_a, penn_fudan_train_b and penn_fudan_val; nothing on disk is read before they are used.

    Args:
        root: the folder that holds PennFudanPed/{PNGImages,PedMasks}.
        seed, sizes: see `split_penn_fudan`.
        prefix: the start of the three names, for keeping several splits side by side.

    Returns:
        The three names. Registering again replaces the earlier registration; a user's own data set of such a name
        stays.

    Raises:
        UserError: on loading, if a folder, a mask or an image is missing or unusable.
    """
    folder = Path(root) / "PennFudanPed"
    metadata = {
        "thing_classes": ["person"],
        "thing_dataset_id_to_contiguous_id": {1: 0},
        "evaluator_type": "coco",
        "image_dir": str(folder / "PNGImages"),
        "mask_dir": str(folder / "PedMasks"),
    }
    for split in SPLITS:
        offer_registration(f"{prefix}_{split}", partial(load_penn_fudan, folder, split, seed, sizes), metadata)
    return [f"{prefix}_{split}" for split in SPLITS]


def load_penn_fudan(folder: Path, split: str, seed: int, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """The records of one split in Detectron2's standard format: one annotation for each pedestrian.

    Boxes are XYXY_ABS along the pixel edges, in pixels; `image_id` is the file's stem.

    Raises:
        UserError: see `register_penn_fudan`.
    """
    names = split_penn_fudan(_image_names(folder), seed, sizes)[split]
    return [_record(folder / "PNGImages" / f"{name}.png", folder / "PedMasks" / f"{name}_mask.png") for name in names]


def _image_names(folder: Path) -> list[str]:
    for part in ("PNGImages", "PedMasks"):
        if not (folder / part).is_dir():
            raise UserError(f"{folder / part} does not exist; unpack {_DOWNLOAD} into {folder.parent}.")
    names = [path.stem for path in (folder / "PNGImages").glob("*.png")]
    if not names:
        raise UserError(f"{folder / 'PNGImages'} holds no .png file; unpack {_DOWNLOAD} into {folder.parent}.")
    return names


def _record(image_file: Path, mask_file: Path) -> dict[str, Any]:
    problem = image_problem(mask_file)
    if problem:
        raise UserError(f"{problem} It is the mask of {image_file.name}.")
    with Image.open(mask_file) as image:
        labels = np.asarray(image)
    if labels.ndim != 2:
        raise UserError(f"The mask {mask_file} has colours; it must be an index image with one channel.")
    height, width = labels.shape
    image_size = read_header(image_file)[:2]
    if image_size != (width, height):
        raise UserError(
            f"The mask {mask_file} is {width}x{height} pixels, its image {image_size[0]}x{image_size[1]}; "
            "they must be of the same size, so download them again."
        )
    return {
        "file_name": str(image_file),
        "image_id": image_file.stem,
        "height": height,
        "width": width,
        "annotations": [annotation_of(part) for part in parts_of(labels)],
    }
