"""The crops of a config, as data set and as training batches."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from detectron2.utils import comm
from fvcore.common.config import CfgNode

from car_gan.data.build import LICENCE
from car_gan.data.crop_dataset import CropDataset
from car_gan.data.labels import labels_of
from car_gan.scenes.licence import FOLDER
from gan_plugin.engine.train_loader import ResumableTrainLoader
from gan_plugin.errors import UserError
from gan_plugin.evaluation.image_scores import FEWEST


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
    return note.read_text(encoding="utf-8").strip() if note.is_file() else FOLDER


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
