"""The data sets that are there once the package is imported, and those that a config names."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN

from gan_plugin.data.examine import Demand, prepare
from gan_plugin.data.nuclei import register_nuclei
from gan_plugin.data.penn_fudan import register_penn_fudan
from gan_plugin.data.subsets import SUBSET_SUFFIXES, register_subsets, replace_registration
from gan_plugin.errors import UserError


def datasets_root() -> str:
    """The folder that holds the data sets: $DETECTRON2_DATASETS, or ./datasets as in Detectron2."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def register_builtin_datasets() -> None:
    """Register penn_fudan_*, nuclei* and the Cityscapes subsets with the thesis' sizes; nothing is read from disk."""
    register_penn_fudan(datasets_root())
    register_nuclei(datasets_root())
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


def prepare_datasets(
    cfg: CfgNode, *, train: bool, compare: bool = True, known_classes: Sequence[str] = ()
) -> list[str]:
    """Register what `cfg.DATASETS` asks for and examine it; every process of a run has to call it.

    The main process reads. What it repairs, all of them see: the data sets are registered anew, from copies in
    OUTPUT_DIR/data if they are COCO JSON files. If masks are run lengths, INPUT.MASK_FORMAT of `cfg` is changed.

    Args:
        cfg: with the plugin's keys; DATASETS.PENN_FUDAN and DATASETS.SUBSETS give seeds and sizes, and
            DATASETS.COCO_JSON the files of further data sets.
        train: whether the training sets are needed as well as the test sets.
        compare: whether the model's number of classes and the pictures have to match; a program that only looks at a
            finished run does without.
        known_classes: names of the classes that the model has learnt; see `Demand`.

    Returns:
        What was repaired and left out, a line for each kind, to be logged; nothing in other processes than the main.

    Raises:
        UserError: data sets are unknown, absent or broken; all that is wrong is told together.
    """
    register_of(cfg)
    if train and not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty: name a config with --config-file, or a data set to train on.")
    demand = replace(demand_of(cfg, train=train, compare=compare), known_classes=known_classes)
    repairs = prepare(demand, os.path.join(cfg.OUTPUT_DIR, "data"), pictures=compare)
    if repairs.bitmask:
        was_frozen = cfg.is_frozen()
        cfg.defrost()
        cfg.INPUT.MASK_FORMAT = "bitmask"
        if was_frozen:
            cfg.freeze()
    return repairs.remarks


def class_names(names: Sequence[str]) -> list[str]:
    """The names of the classes of the first of these registered data sets, which has been read; [] if it has none."""
    return list(MetadataCatalog.get(names[0]).get("thing_classes") or ()) if names else []


def register_of(cfg: CfgNode) -> None:
    """Register the data sets that `cfg.DATASETS` describes; nothing is read.

    Raises:
        UserError: an entry of DATASETS.COCO_JSON is not of its form.
    """
    register_penn_fudan(datasets_root(), cfg.DATASETS.PENN_FUDAN.SEED, cfg.DATASETS.PENN_FUDAN.SIZES)
    for entry in cfg.DATASETS.COCO_JSON:
        register_coco_json(entry)


def demand_of(cfg: CfgNode, *, train: bool, compare: bool = True) -> Demand:
    """What a run of `cfg` asks of its data; arguments as of `prepare_datasets`."""
    key = _classes_key(cfg) if compare else ""
    classes: Any = cfg
    for part in key.split(".") if key else ():
        classes = classes[part]
    return Demand(
        train=tuple(cfg.DATASETS.TRAIN) if train else (),
        test=tuple(cfg.DATASETS.TEST),
        sizes=dict(zip(SUBSET_SUFFIXES, cfg.DATASETS.SUBSETS.SIZES, strict=True)),
        seed=cfg.DATASETS.SUBSETS.SEED,
        on_bad=cfg.DATASETS.ON_BAD,
        masks=cfg.MODEL.MASK_ON,
        box_only=cfg.MODEL.GAN.MASK.BOX_ONLY,
        mask_format=cfg.INPUT.MASK_FORMAT if train else "",
        classes=classes if key else 0,
        classes_key=key,
    )


def _classes_key(cfg: CfgNode) -> str:
    """The key of the number of classes; "" for an architecture that is not Detectron2's."""
    name = cfg.MODEL.META_ARCHITECTURE
    if name == "RetinaNet":
        return "MODEL.RETINANET.NUM_CLASSES"
    known = name in META_ARCH_REGISTRY and issubclass(META_ARCH_REGISTRY.get(name), GeneralizedRCNN)
    return "MODEL.ROI_HEADS.NUM_CLASSES" if known else ""
