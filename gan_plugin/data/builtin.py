"""The data sets that are there once the package is imported, and those that a config names."""

import os

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from gan_plugin.data.checks import check_datasets
from gan_plugin.data.penn_fudan import register_penn_fudan
from gan_plugin.data.subsets import SUBSET_SUFFIXES, register_subsets, resolve_subset
from gan_plugin.errors import UserError


def datasets_root() -> str:
    """The folder that holds the data sets: $DETECTRON2_DATASETS, or ./datasets as in Detectron2."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def register_builtin_datasets() -> None:
    """Register penn_fudan_* and the Cityscapes subsets with the thesis' sizes; nothing is read from disk."""
    register_penn_fudan(datasets_root())
    register_subsets("cityscapes_fine_instance_seg_train")


def prepare_datasets(cfg: CfgNode, *, train: bool) -> None:
    """Register what `cfg.DATASETS` asks for and check that it is there.

    Args:
        cfg: with the plugin's keys; DATASETS.PENN_FUDAN and DATASETS.SUBSETS give seeds and sizes.
        train: whether the training sets are needed as well as the test sets.

    Raises:
        UserError: a data set is unknown, absent or broken; see `check_datasets`.
    """
    register_penn_fudan(datasets_root(), cfg.DATASETS.PENN_FUDAN.SEED, cfg.DATASETS.PENN_FUDAN.SIZES)
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
