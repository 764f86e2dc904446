"""From a study's description of its data to registered data sets, through one file for each part."""

import json
import os
from collections.abc import Mapping
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as rle_tools

from gan_plugin.data.builtin import datasets_root, prepare_datasets
from gan_plugin.data.cityscapes import IMAGE_SUFFIX, examine_cityscapes, files_of, read_polygons
from gan_plugin.data.findings import Findings
from gan_plugin.data.subsets import replace_registration
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import check_exists, write_whole
from gan_plugin.processes import leave_ctrl_c_to_parent

from .mapper import mask_box
from .parts import PARTS, Part

PREFIX = "tuning_"
_KEPT_METADATA = ("thing_classes", "thing_dataset_id_to_contiguous_id")


def dataset_name(part: str) -> str:
    """The name under which a part of the study is registered."""
    return f"{PREFIX}{part}"


def write_part(part: Part, file: Path, cfg: CfgNode, classes: tuple[str, ...]) -> dict[str, Any]:
    """Read the records of a part and write them to `file` as JSON, masks included, so that trials need not do it again.

    Args:
        part: what to read.
        file: whole or absent.
        cfg: with the plugin's keys, for registered data sets.
        classes: of Cityscapes' folders; registered data sets have their own.

    Returns:
        What was written: {"metadata", "records"}; file names below the data sets' root are relative to it.

    Raises:
        UserError: the part is empty, or something it needs is missing or broken.
    """
    content = _registered(part, cfg) if part.dataset else _cityscapes(part, classes, cfg.DATASETS.ON_BAD)
    if not content["records"]:
        raise UserError(f"The part {file.stem} of the data holds no image; check data.parts.{file.stem}.")
    root = os.path.abspath(datasets_root())
    for record in content["records"]:
        path = os.path.abspath(record["file_name"])
        record["file_name"] = os.path.relpath(path, root) if path.startswith(root + os.sep) else path
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content).encode()
    write_whole(file, text)
    return content


def _cityscapes(part: Part, classes: tuple[str, ...], on_bad: str) -> dict[str, Any]:
    root = Path(datasets_root()) / "cityscapes"
    image_dir, gt_dir = root / "leftImg8bit" / part.split, root / "gtFine" / part.split
    for city in part.cities if image_dir.is_dir() else ():
        check_exists(image_dir / city, "", "check `cities`, or unpack leftImg8bit again", folder=True)
    findings = Findings(on_bad)
    examine_cityscapes(image_dir, gt_dir, findings, cities=part.cities)
    findings.conclude()
    cities = part.cities or tuple(sorted(folder.name for folder in image_dir.iterdir() if folder.is_dir()))
    images = sorted(path for city in cities for path in (image_dir / city).glob(f"*{IMAGE_SUFFIX}"))
    read = partial(record_of, gt_dir=gt_dir, classes=classes)
    chosen = _spread(images, part.images)
    if len(chosen) < 50:
        records = [read(image) for image in chosen]
    else:
        with get_context("fork").Pool(initializer=leave_ctrl_c_to_parent) as pool:
            records = pool.map(read, chosen, chunksize=4)
    metadata = {
        "thing_classes": list(classes),
        "evaluator_type": "cityscapes_instance",
        "gt_dir": os.path.relpath(gt_dir, datasets_root()),
    }
    return {"metadata": metadata, "records": records}


def instance_map(polygons: Path) -> np.ndarray:
    """(H, W) whole numbers as Cityscapes' instanceIds: 1000 * label id + number, or the label id of a group.

    Drawn by cityscapesScripts: objects in the file's order, each over those before it.
    """
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2instanceImg import createInstanceImage

    read = read_polygons(polygons)
    annotation = Annotation()
    annotation.fromJsonText(json.dumps({"imgHeight": read.height, "imgWidth": read.width, "objects": read.objects}))
    return np.asarray(createInstanceImage(annotation, "ids"))


def instance_masks(polygons: Path) -> list[tuple[str, bool, np.ndarray]]:
    """(class name, whether it is a group, (H, W) bool mask) of every object with instances, trailers included."""
    from cityscapesscripts.helpers.labels import id2label

    ids = instance_map(polygons)
    found = []
    for number in np.unique(ids):
        is_group = number < 1000
        label = id2label[int(number if is_group else number // 1000)]
        if label.hasInstances and label.id >= 0:
            found.append((label.name, bool(is_group), ids == number))
    return found


def record_of(image: Path, gt_dir: Path, classes: tuple[str, ...]) -> dict[str, Any]:
    """One image as a record in Detectron2's format, with plain JSON values and masks as run-length code.

    Boxes are computed from the masks (slides, section 1). Groups become iscrowd; objects that others hide completely
    are left out.

    Raises:
        UserError: the polygons are missing or broken.
    """
    polygons = files_of(image, gt_dir).polygons
    read = read_polygons(polygons)
    annotations = [
        _annotation(mask, classes.index(name), is_group)
        for name, is_group, mask in instance_masks(polygons)
        if name in classes
    ]
    return {
        "file_name": str(image),
        "image_id": image.name,
        "height": read.height,
        "width": read.width,
        "annotations": annotations,
    }


def _annotation(mask: np.ndarray, category: int, is_group: bool) -> dict[str, Any]:
    rle = rle_tools.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "bbox": list(mask_box(mask)),
        "bbox_mode": int(BoxMode.XYXY_ABS),
        "category_id": category,
        "iscrowd": int(is_group),
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
    }


def _registered(part: Part, cfg: CfgNode) -> dict[str, Any]:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (part.dataset,), ()
    prepare_datasets(cfg, train=True)
    records = _spread(sorted(DatasetCatalog.get(part.dataset), key=lambda r: str(r["file_name"])), part.images)
    source = MetadataCatalog.get(part.dataset).as_dict()
    # the truth of a part of the images is made from the records, so that COCO's metrics do for all
    metadata = {"evaluator_type": "coco", **{key: source[key] for key in _KEPT_METADATA if source.get(key)}}
    if not metadata.get("thing_classes"):
        raise UserError(
            f"The data set {part.dataset} has no thing_classes in its metadata, so it cannot be trained on."
        )
    return {"metadata": metadata, "records": [_plain(record) for record in records]}


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    annotations = [
        {
            "bbox": [float(x) for x in BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS)],
            "bbox_mode": int(BoxMode.XYXY_ABS),
            "category_id": int(a["category_id"]),
            "iscrowd": int(a.get("iscrowd", 0)),
            "segmentation": _plain_mask(a.get("segmentation")),
        }
        for a in record.get("annotations", ())
    ]
    kept = {key: record[key] for key in ("file_name", "image_id", "height", "width")}
    return {**kept, "annotations": annotations}


def _plain_mask(segmentation: Any) -> Any:
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        return {"size": list(segmentation["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}
    return [[float(x) for x in polygon] for polygon in segmentation or ()]


def _spread(items: list[Any], wanted: int) -> list[Any]:
    return items if not 0 < wanted < len(items) else [items[i * len(items) // wanted] for i in range(wanted)]


def register_parts(folder: Path) -> list[str]:
    """Register every `folder`/<part>.json as `tuning_<part>`; returns those names."""
    names = []
    for part in PARTS:
        file = folder / f"{part}.json"
        if file.is_file():
            content = read_part(file)
            replace_registration(dataset_name(part), partial(_records, file), content["metadata"])
            names.append(dataset_name(part))
    return names


def read_part(file: Path) -> dict[str, Any]:
    """What `write_part` wrote, with the file names and `gt_dir` below the present root of the data sets.

    Raises:
        UserError: the file cannot be read.
    """
    with as_user_error(f"{file} cannot be read", "delete it, and `study.py resume` makes it anew", OSError, ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
    root = datasets_root()
    metadata = content["metadata"]
    if "gt_dir" in metadata:
        metadata["gt_dir"] = os.path.join(root, metadata["gt_dir"])
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if ids:
        metadata["thing_dataset_id_to_contiguous_id"] = {int(key): value for key, value in ids.items()}
    for record in content["records"]:
        record["file_name"] = os.path.join(root, record["file_name"])
        for annotation in record["annotations"]:
            annotation["bbox_mode"] = BoxMode(annotation["bbox_mode"])
    return content


def _records(file: Path) -> list[dict[str, Any]]:
    return read_part(file)["records"]


def prepare_parts(cfg: CfgNode) -> None:
    """Register the parts in the folder TUNING.DATA, and prepare whatever other data sets a config names.

    Raises:
        UserError: a data set is unknown, absent or broken.
    """
    known = set(register_parts(Path(cfg.TUNING.DATA))) if cfg.TUNING.DATA else set()
    wanted = {*cfg.DATASETS.TRAIN, *cfg.TUNING.VAL.DATASETS, *cfg.TUNING.TEST, *cfg.DATASETS.TEST}
    if others := sorted(wanted - known):
        cfg = cfg.clone()
        cfg.defrost()
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(others), ()
        prepare_datasets(cfg, train=True)
