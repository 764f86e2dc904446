"""The three parts of a data set: A and B to train on, and the held-out one."""

from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from gan_plugin.data.builtin import PENN_FUDAN_SPLITS, prepare_datasets
from gan_plugin.data.subsets import SUBSET_SUFFIXES
from gan_plugin.errors import UserError

_PENN_FUDAN = "penn_fudan"


@dataclass(frozen=True)
class Split:
    """Names of A, B and the held-out part, the images asked for, and those that there are."""

    names: list[str]
    asked: list[int]
    used: list[int]


def make_split(cfg: CfgNode, sizes: Sequence[int] | None) -> Split:
    """The parts of the one data set that DATASETS.TRAIN of `cfg` names, or that its subsets are of.

    Args:
        cfg: changed: DATASETS.TRAIN, DATASETS.TEST and the SIZES of the subsets become those of the split.
        sizes: images in A, B and the held-out part; None leaves the config's.

    Raises:
        UserError: more than one data set, or it is unknown, absent, broken or too small.
    """
    families = sorted({_family(name) for name in cfg.DATASETS.TRAIN})
    if len(families) != 1:
        raise UserError(
            f"A comparison needs one data set to split, but DATASETS.TRAIN names {len(families)}: "
            f"{', '.join(families) or 'none'}; set it to one."
        )
    suffixes, node = SUBSET_SUFFIXES, cfg.DATASETS.SUBSETS
    if families == [_PENN_FUDAN]:
        suffixes, node = PENN_FUDAN_SPLITS, cfg.DATASETS.PENN_FUDAN
    if sizes is not None:
        node.SIZES = tuple(sizes)
    if min(node.SIZES) < 1:
        raise UserError(f"The sizes {tuple(node.SIZES)} leave a part of the data set empty; give three numbers >= 1.")
    names = [f"{families[0]}_{suffix}" for suffix in suffixes]
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(names[:2]), tuple(names[2:])
    prepare_datasets(cfg, train=True)
    return Split(names, list(node.SIZES), [len(DatasetCatalog.get(name)) for name in names])


def _family(name: str) -> str:
    parent, _, suffix = name.rpartition("_")
    if name in {f"{_PENN_FUDAN}_{split}" for split in PENN_FUDAN_SPLITS}:
        return _PENN_FUDAN
    return parent if suffix in SUBSET_SUFFIXES and parent in DatasetCatalog else name
