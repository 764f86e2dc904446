"""The crops as what a GAN trains on: squares of one size with values in [-1, 1], split, labelled and in batches."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.utils import comm
from fvcore.common.config import CfgNode
from torch.utils.data import Dataset

from car_gan.matting import LEAST_GREENNESS, greenness, key_out
from car_gan.pictures import (
    GREEN,
    LICENCE,
    MANIFEST,
    Colour,
    channel_names,
    checked_colour,
    on_key,
    pad_to_square,
    read_picture,
    resize,
)
from car_gan.scenes.scene import TERMS_FOLDER
from gan_plugin.engine.train_loader import ResumableTrainLoader
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.evaluation.image_scores import FEWEST
from gan_plugin.files import check_exists, read_text
from gan_plugin.rules import BELOW_1, check_name, whole

SPLITS = ("train", "held_out", "all")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# crops up to this many bytes are decoded once and kept
_KEPT_BYTES = 2 << 30
# upper ends of hues in degrees; what is above the last one is red again
_HUES = ((20, "red"), (70, "yellow"), (170, "green"), (260, "blue"), (330, "purple"), (360, "red"))
_GREY_SATURATION, _BLACK, _WHITE = 0.2, 0.25, 0.75
# a pixel that is nearly the car's alone has its colour
_SOLID = 0.95


def choose(groups: Sequence[str], split: str, seed: int, held_out: float) -> list[int]:
    """Indices of the crops in a split, in their order.

    Cars of one source image share light, street and maybe the car itself, so an image is held out as a whole. Images
    are ranked by a hash of their name and the seed: a data set that grows keeps nearly all of its split.

    Args:
        groups: of every crop the name of its source image.
        split: one of SPLITS.
        seed: of the ranking.
        held_out: share of the images, in [0, 1); at least one where there are two or more and it is not 0.

    Raises:
        UserError: the split is unknown, or the share is out of range.
    """
    check_name("The split", split, SPLITS)
    BELOW_1.check("The held-out share", held_out)
    if split == "all":
        return list(range(len(groups)))
    ranked = sorted(set(groups), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    count = min(len(ranked) - 1, max(1, round(held_out * len(ranked)))) if held_out else 0
    apart = set(ranked[: max(0, count)])
    return [index for index, name in enumerate(groups) if (name in apart) == (split == "held_out")]


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
        whole(8).check("The crop size", size)
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
    check_exists(folder, "The folder of crops", "make one with cars.py build", folder=True)
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
    with as_user_error(f"{manifest} is no manifest of crops", "build the crops again", ValueError, KeyError, TypeError):
        records = [json.loads(line) for line in read_text(manifest).splitlines() if line.strip()]
        for record in records:
            str(record["file"]), str(record["source_image"])
    return records


def has_ground(crops: CropDataset) -> bool:
    """Whether crops lie on a colour that they can be taken off: not with their surroundings, nor on grey."""
    in_context = crops.records[0].get("mode") == "context"
    return not in_context and float(greenness(np.asarray(crops.key), crops.key)) >= LEAST_GREENNESS


def labels_of(crops: CropDataset, kind: str) -> list[str]:
    """The label of every crop.

    Args:
        crops: to describe.
        kind: "colour" for `main_colour`, or a field of the manifest, such as "label", the class of the annotation,
            "city", which for Stanford Cars is the model, or one that you have added, such as a viewpoint.

    Raises:
        UserError: the manifest has no such field, or there is none; or "colour" is asked of crops that cannot be told
            from their ground.
    """
    if kind == "colour":
        if crops.channels == 3 and not has_ground(crops):
            raise UserError(
                f"The cars in {crops.folder} cannot be told from what they lie on, so MODEL.LABEL.KIND cannot be "
                "'colour'; set it to a field of manifest.jsonl, or build the crops on a key colour."
            )
        pictures = (crops.pixels(index).permute(1, 2, 0).numpy() for index in range(len(crops)))
        return [main_colour(picture, crops.key) for picture in pictures]
    for record in crops.records:
        if kind not in record:
            raise UserError(
                f"MODEL.LABEL.KIND is '{kind}', but {crops.folder} says nothing of that for {record['file']}; set "
                f"it to colour, or to a field of manifest.jsonl: {', '.join(record)}."
            )
    return [str(record[kind]) for record in crops.records]


def main_colour(picture: np.ndarray, key: Colour) -> str:
    """The name of the colour that most pixels of the car have: a hue, or "black", "grey" or "white".

    Args:
        picture: (H, W, 3 or 4) uint8 over the key colour; where there is alpha, it says what is car.
        key: the key colour.
    """
    colours = picture[..., :3].astype(np.float32)
    alpha = picture[..., 3] / 255 if picture.shape[-1] == 4 else key_out(colours, key)[1]
    inside = colours[alpha >= min(_SOLID, alpha.max())]
    hue, saturation, value = cv2.cvtColor(inside[None] / 255, cv2.COLOR_RGB2HSV)[0].T
    grey = saturation < _GREY_SATURATION
    hues = np.array([name for _, name in _HUES])[np.searchsorted([end for end, _ in _HUES], hue)]
    names = np.select([value < _BLACK, grey & (value > _WHITE), grey], ["black", "white", "grey"], hues)
    return Counter(names.tolist()).most_common(1)[0][0]


def crops_of(cfg: CfgNode, split: str = "train", *, flip: bool = False) -> CropDataset:
    """The crops of DATASETS.CROPS in one split, in the form of INPUT.

    Raises:
        UserError: no folder is named, or the crops cannot be used.
    """
    if not cfg.DATASETS.CROPS:
        raise UserError("DATASETS.CROPS names no folder of crops; make one with cars.py build and name it.")
    return CropDataset(
        cfg.DATASETS.CROPS,
        cfg.INPUT.SIZE,
        channels=cfg.INPUT.CHANNELS,
        flip=flip,
        split=split,
        seed=cfg.DATASETS.SPLIT_SEED,
        held_out=cfg.DATASETS.HELD_OUT,
        key=tuple(cfg.DATASETS.KEY),
    )


def with_labels(cfg: CfgNode, crops: CropDataset) -> tuple[CfgNode, list[str]]:
    """The label of every crop, if MODEL.LABEL.KIND names one, and `cfg` with what networks and latents are built by.

    That is the names of the labels and their shares.

    Raises:
        UserError: the crops have no such labels, or all the same.
    """
    if not cfg.MODEL.LABEL.KIND:
        return cfg, []
    labels = labels_of(crops, cfg.MODEL.LABEL.KIND)
    counts = Counter(labels)
    if len(counts) < 2:
        raise UserError(
            f"The {cfg.MODEL.LABEL.KIND} of all crops is '{next(iter(counts))}', so there is nothing to tell the "
            "networks; leave MODEL.LABEL.KIND empty."
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.LABEL.NAMES = tuple(sorted(counts))
    cfg.MODEL.LABEL.SHARES = tuple(counts[name] / len(crops) for name in sorted(counts))
    cfg.freeze()
    return cfg, labels


def check_count(crops: CropDataset) -> None:
    """Raise a UserError unless there are crops enough for a training and its scores."""
    least = max(2 * comm.get_world_size(), FEWEST)
    if len(crops) < least:
        raise UserError(
            f"{crops.folder} has too few crops to train on: {len(crops)}, where a training with scores needs {least} "
            "beside those that DATASETS.HELD_OUT keeps apart; build more."
        )


def licence_of(crops: CropDataset) -> str:
    """The terms that everything made from these crops is under."""
    note = crops.folder / LICENCE
    return note.read_text(encoding="utf-8").strip() if note.is_file() else TERMS_FOLDER


def train_loader(cfg: CfgNode, crops: CropDataset, labels: Sequence[str] = ()) -> ResumableTrainLoader:
    """Endless batches of SOLVER.IMS_PER_BATCH crops over all processes, each beside the number of its label, if any.

    Args:
        cfg, labels: of `with_labels`.
        crops: to train on.

    Raises:
        UserError: a batch is larger than the data set, or the processes do not divide it.
    """
    batch, processes = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    least, most = 2 * processes, len(crops) // processes * processes
    if batch > len(crops):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {batch}, but there are only {len(crops)} crops to train on; lower it to {most} "
            "or less, or build more crops."
        )
    if batch % processes or batch < least:
        raise UserError(f"SOLVER.IMS_PER_BATCH is {batch}; make it a multiple of {processes}, {least} or more.")

    names = list(cfg.MODEL.LABEL.NAMES)
    numbers = [names.index(label) for label in labels]

    def load(index: int) -> Any:
        return (crops[index], numbers[index]) if numbers else crops[index]

    return ResumableTrainLoader(
        list(range(len(crops))),
        load,
        seed=cfg.SEED,
        total_batch_size=batch,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        aspect_ratio_grouping=False,
    )
