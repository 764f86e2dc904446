"""The data sets that are there once the package is imported, and those that a config names."""

import os
from collections.abc import Sequence
from functools import partial

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.datasets.coco import load_coco_json

from gan_plugin.data.checks import check_datasets
from gan_plugin.data.penn_fudan import register_penn_fudan
from gan_plugin.data.subsets import SUBSET_SUFFIXES, register_subsets, replace_registration, resolve_subset
from gan_plugin.errors import UserError


def datasets_root() -> str:
    """The folder that holds the data sets: $DETECTRON2_DATASETS, or ./datasets as in Detectron2."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def register_builtin_datasets() -> None:
    """Register penn_fudan_* and the Cityscapes subsets with the thesis' sizes; nothing is read from disk."""
    register_penn_fudan(datasets_root())
    register_subsets("cityscapes_fine_instance_seg_train")


def register_coco_json(entry: Sequence[str]) -> None:
    """Register a data set in COCO's format; nothing is read before it is used. An earlier one of the name is replaced.

    Args:
        entry: its name, the JSON file of its instances, the folder that the file names in it are relative to.

    Raises:
        UserError: `entry` has not that form.
    """
    if len(entry) != 3 or not all(isinstance(part, str) for part in entry):
        raise UserError(f"DATASETS.COCO_JSON has {entry!r}; each entry is (name, JSON file, image folder).")
    name, json_file, images = entry
    metadata = {"json_file": json_file, "image_root": images, "evaluator_type": "coco"}
    replace_registration(name, partial(load_coco_json, json_file, images, name), metadata)


def prepare_datasets(cfg: CfgNode, *, train: bool) -> None:
    """Register what `cfg.DATASETS` asks for and check that it is there.

    Args:
        cfg: with the plugin's keys; DATASETS.PENN_FUDAN and DATASETS.SUBSETS give seeds and sizes, and
            DATASETS.COCO_JSON the files of further data sets.
        train: whether the training sets are needed as well as the test sets.

    Raises:
        UserError: a data set is unknown, absent or broken; see `check_datasets`.
    """
    register_penn_fudan(datasets_root(), cfg.DATASETS.PENN_FUDAN.SEED, cfg.DATASETS.PENN_FUDAN.SIZES)
    for entry in cfg.DATASETS.COCO_JSON:
        register_coco_json(entry)
    sizes = dict(zip(SUBSET_SUFFIXES, cfg.DATASETS.SUBSETS.SIZES, strict=True))
    if train and not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty: name a config with --config-file, or a data set to train on.")
    names = [*(cfg.DATASETS.TRAIN if train else ()), *cfg.DATASETS.TEST]
    for name in names:
        parent, _, suffix = name.rpartition("_")
        if parent in DatasetCatalog and suffix in sizes:
            register_subsets(parent, cfg.DATASETS.SUBSETS.SEED, sizes)
        else:
            resolve_subset(name, cfg.DATASETS.SUBSETS.SEED, sizes)
    check_datasets(names)
