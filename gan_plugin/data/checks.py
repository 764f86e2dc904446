"""Checks that turn a broken or missing data set into one sentence, before training and while loading."""

import copy
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import BitMasks, Instances, PolygonMasks

from gan_plugin.data.pictures import DEEP, decode_problem, image_problem
from gan_plugin.data.subsets import resolve_subset
from gan_plugin.errors import UserError

_IMAGE_SUFFIX = "_leftImg8bit.png"
_TRUTH_SUFFIXES = ("_gtFine_polygons.json", "_gtFine_instanceIds.png", "_gtFine_labelIds.png")
_PATH_KEYS = ("image_root", "image_dir", "mask_dir", "gt_dir", "json_file")


def check_datasets(names: Iterable[str]) -> None:
    """Check that every data set in `names` is registered and that its files are there; call it before training.

    Subsets such as `<parent>_a` are registered on the way. For Cityscapes every polygon file is read, because
    Detectron2's loader reads them in worker processes and a traceback from there does not name the file. Images are
    not decoded here: `CheckedDatasetMapper` reports those.

    Raises:
        UserError: unknown name, missing folder or file, a file that is not what it should be.
    """
    seen = set()
    for name in names:
        metadata = MetadataCatalog.get(resolve_subset(name))
        paths = tuple(metadata.get(key) for key in _PATH_KEYS)
        if paths in seen:
            continue
        seen.add(paths)
        if str(metadata.get("evaluator_type", "")).startswith("cityscapes"):
            _check_cityscapes(name, metadata.image_dir, metadata.gt_dir)
        else:
            _check_paths(name, metadata)


class CheckedDatasetMapper:
    """A dataset mapper that names the file when an image cannot be read, and that copes with images without instances.

    Wraps any callable from one record (Detectron2's standard dict) to one mapped record. Two things change:

    - An image that does not decode, or has another size than its annotations say, raises UserError with its path.
    - A training image without instances gets an empty `gt_masks` beside its empty `gt_boxes`. Detectron2's mapper
      leaves the field out, and fails on such an image when INPUT.CROP is on, because it then wants boxes from masks.
      It takes DATALOADER.FILTER_EMPTY_ANNOTATIONS False for such images to arrive here at all.
    """

    def __init__(self, mapper: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        self.mapper: Any = mapper

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        mapper = self._mapper_for(record)
        try:
            mapped = mapper(record)
        except UserError:
            raise
        except Exception as error:
            sentence = _explanation(record)
            if sentence is None:
                raise
            raise UserError(sentence) from error
        if mapped is not None and isinstance(mapped.get("instances"), Instances):
            self._add_empty_masks(mapped["instances"])
        return mapped

    def _mapper_for(self, record: dict[str, Any]) -> Callable:
        has_instances = any(not annotation.get("iscrowd", 0) for annotation in record.get("annotations", ()))
        if has_instances or not getattr(self.mapper, "recompute_boxes", False):
            return self.mapper
        without_boxes = copy.copy(self.mapper)
        without_boxes.recompute_boxes = False
        return without_boxes

    def _add_empty_masks(self, instances: Instances) -> None:
        if len(instances) or instances.has("gt_masks") or not getattr(self.mapper, "use_instance_mask", False):
            return
        if self.mapper.instance_mask_format == "polygon":
            instances.gt_masks = PolygonMasks([])
        else:
            instances.gt_masks = BitMasks(torch.zeros((0, *instances.image_size), dtype=torch.bool))


def _explanation(record: dict[str, Any]) -> str | None:
    if "file_name" in record:
        problem = decode_problem(record["file_name"], record.get("width"), record.get("height"))
        # a mapper of the user's own may know what to do with more than 8 bits
        if problem and problem.kind is not DEEP:
            return problem.sentence
    return image_problem(record["sem_seg_file_name"]) if "sem_seg_file_name" in record else None


def _check_paths(name: str, metadata: Any) -> None:
    for key in _PATH_KEYS:
        path = metadata.get(key)
        derived = key == "json_file" and os.path.basename(path or "") == f"{name}_coco_format.json"
        if path and not derived and not os.path.exists(path):
            raise UserError(
                f"The data set '{name}' needs {path}, which does not exist; put the data there, or point the root "
                f"it was registered with elsewhere ({_environment()})."
            )


def _check_cityscapes(name: str, image_dir: str, gt_dir: str) -> None:
    missing = [folder for folder in (image_dir, gt_dir) if not os.path.isdir(folder)]
    if missing:
        raise UserError(f"The data set '{name}' looked in {' and '.join(missing)}: no such folder. {_ways_out()}")
    images = sorted(Path(image_dir).glob("*/*"))
    if not images:
        raise UserError(f"The data set '{name}' found no <city>/*{_IMAGE_SUFFIX} in {image_dir}. {_ways_out()}")
    strays = [path for path in Path(image_dir).iterdir() if not path.is_dir()]
    strays += [path for path in images if not path.name.endswith(_IMAGE_SUFFIX)]
    if strays:
        raise UserError(f"{strays[0]} is not a Cityscapes image (<city>/*{_IMAGE_SUFFIX}); move it out of {image_dir}.")
    for image in images:
        check_truth_of(image, Path(gt_dir))


def check_truth_of(image: Path, gt_dir: Path) -> None:
    """Check that the Cityscapes image <city>/<name>_leftImg8bit.png has its annotation files under `gt_dir`.

    Raises:
        UserError: a file is missing, or the polygons are not what Cityscapes defines.
    """
    stem = gt_dir / image.parent.name / image.name.removesuffix(_IMAGE_SUFFIX)
    truth = [Path(f"{stem}{suffix}") for suffix in _TRUTH_SUFFIXES]
    for path in truth:
        if not path.is_file():
            raise UserError(f"{path} is missing; the annotations of {image} are incomplete, so unpack gtFine again.")
    _check_polygons(truth[0])


def _check_polygons(path: Path) -> None:
    from cityscapesscripts.helpers.labels import name2label

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        used = [entry for entry in content["objects"] if entry["polygon"] and "deleted" not in entry]
        labels = {entry["label"] for entry in used}
        broken = [entry["label"] for entry in used if not _is_polygon(entry["polygon"])]
        int(content["imgHeight"]), int(content["imgWidth"])
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); unpack it from gtFine again.") from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} is JSON but no Cityscapes annotation ({error!r}); unpack it from gtFine again."
        ) from error
    unknown = sorted(label for label in labels if not {label, label.removesuffix("group")} & name2label.keys())
    if unknown:
        raise UserError(f"{path} has the label '{unknown[0]}', which Cityscapes does not define; rename or remove it.")
    if broken:
        raise UserError(f"{path} has a polygon of '{broken[0]}' that is not three or more points; unpack it again.")


def _is_polygon(points: Any) -> bool:
    return len(points) > 2 and all(len(point) == 2 and isinstance(sum(point), int | float) for point in points)


def _environment() -> str:
    root = os.environ.get("DETECTRON2_DATASETS")
    return f"DETECTRON2_DATASETS is {root}" if root else "DETECTRON2_DATASETS is not set"


def _ways_out() -> str:
    return (
        f"{_environment()}. Either download leftImg8bit and gtFine from cityscapes-dataset.com, prepare them with "
        "cityscapesScripts and set DETECTRON2_DATASETS to the folder that holds cityscapes/, or run "
        "`.venv/bin/python tools/make_toy_cityscapes.py OUT` and set DETECTRON2_DATASETS=OUT."
    )
