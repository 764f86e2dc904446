"""Examination of the dicts that a user's own function returns, Detectron2's standard format of a data set."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode

from gan_plugin.errors import UserError

from . import kinds
from .findings import Findings, Kind
from .mappers import has_mask
from .pictures import read_header
from .shapes import examine_box, examine_mask, is_finite, short, whole

Record = dict[str, Any]
_MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)


class Records:
    """The records of one data set, with whatever could be repaired repaired and broken annotations left out.

    Attributes:
        sound: the records; those that were given stay as they are.
        changed: whether they differ from those.
        unmasked, asked: how many objects have no mask, of how many, those that are left out included.
    """

    def __init__(
        self,
        records: Sequence[Any],
        place: str,
        findings: Findings,
        *,
        classes: int = 0,
        masks: bool = True,
        box_only: bool = False,
    ) -> None:
        """
        Args:
            records: what the function returned.
            place: what to call the data set in sentences.
            findings: gets all problems. If it refuses one, the result is of no use.
            classes: the category_ids are below this number; 0 if it is not known.
            masks: whether every annotation needs a mask.
            box_only: whether an object may be without one nevertheless.
        """
        self.sound: list[Record] = []
        self.changed = False
        self.unmasked = self.asked = 0
        self._box_only = box_only
        self._place, self._findings, self._classes, self._masks = place, findings, classes, masks
        self._entry = ""
        every = [a for r in records if isinstance(r, dict) for a in r.get("annotations") or () if isinstance(a, dict)]
        if masks and not box_only and every and not any("segmentation" in annotation for annotation in every):
            self._note(kinds.NO_MASKS)
            self._masks = False
        if not len(records):
            self._note(kinds.NO_IMAGES)
        has_annotations = any(isinstance(record, dict) and "annotations" in record for record in records)
        ids: set[Any] = set()
        for number, record in enumerate(records, start=1):
            self._entry = f"record number {number}"
            if not isinstance(record, dict):
                self._note(kinds.NO_OBJECT)
                continue
            self.sound.append(self._examined({**record}, number, ids, has_annotations))

    def _note(self, kind: Kind, field: str = "", detail: str = "") -> None:
        self._findings.add(kind, self._place, self._entry, field, detail)
        self.changed = self.changed or kind is not kinds.FLAT

    def _examined(self, record: Record, number: int, ids: set[Any], has_annotations: bool) -> Record:
        name = record.get("file_name")
        if not isinstance(name, str) or not name:
            self._note(kinds.NO_NAME, "file_name")
            return record
        self._entry = name
        key = record.get("image_id")
        if key is None:
            self._note(kinds.IMAGE_ID_MADE, "image_id")
            key = record["image_id"] = f"record {number}"
        if key in ids:
            self._note(kinds.ID_TWICE, "image_id", f" ({short(key)})")
        ids.add(key)
        size = self._size_of(record, name)
        annotations = record.get("annotations")
        if annotations is None and has_annotations:
            self._note(kinds.ANNOTATIONS_MADE, "annotations")
            annotations = record["annotations"] = []
        if annotations is not None and not isinstance(annotations, list | tuple):
            self._note(kinds.NO_LIST, "annotations")
        elif annotations and size is not None:
            record["annotations"] = self._sound_of(annotations, size, name)
        return record

    def _size_of(self, record: Record, name: str) -> tuple[int, int] | None:
        sides = whole(record.get("width")), whole(record.get("height"))
        if "width" not in record and "height" not in record:
            try:
                sides = read_header(name)[:2]
            except UserError:
                # which the examination of the pictures tells
                return None
            self._note(kinds.SIZE_MADE)
        elif sides[0] is None or sides[1] is None or min(sides[0], sides[1]) <= 0:
            self._note(kinds.SIZE_FORM, "", f" ({short(record.get('width'))}, {short(record.get('height'))})")
            return None
        if (record.get("width"), record.get("height")) != sides:
            self.changed = True
        record["width"], record["height"] = sides
        return sides  # type: ignore[return-value]

    def _sound_of(self, annotations: Sequence[Any], size: tuple[int, int], name: str) -> list[Record]:
        kept = []
        for number, annotation in enumerate(annotations, start=1):
            self._entry = f"{name}, annotation number {number}"
            if not isinstance(annotation, dict):
                self._note(kinds.BAD_OBJECT)
                continue
            annotation = {**annotation}
            if self._has_class(annotation) and self._has_shape(annotation, *size):
                kept.append(annotation)
        return kept

    def _has_class(self, annotation: Record) -> bool:
        number: Any = annotation.get("category_id")
        sound = isinstance(number, int | np.integer) and not isinstance(number, bool) and number >= 0
        if not sound or self._classes and number >= self._classes:
            limit = f"; there are {self._classes} classes" if self._classes else ""
            self._note(kinds.CLASS_FORM, "category_id", f" ({short(number)}{limit})")
            return False
        crowd = annotation.get("iscrowd", 0)
        if isinstance(crowd, bool) or crowd not in (0, 1):
            if not isinstance(crowd, bool):
                self._note(kinds.CROWD_FORM, "iscrowd", f" ({short(crowd)})")
                return False
            self._note(kinds.CROWD_MADE, "iscrowd")
            annotation["iscrowd"] = int(crowd)
        return True

    def _has_shape(self, annotation: Record, width: int, height: int) -> bool:
        mode = annotation.get("bbox_mode")
        if mode == BoxMode.XYWHA_ABS:
            # rotated boxes have no masks
            return True
        if mode not in _MODES and annotation.get("bbox") is not None:
            self._note(kinds.BOX_MODE, "bbox_mode", f" ({short(mode)})")
            return False
        is_object = not annotation.get("iscrowd", 0)
        lacks = is_object and not has_mask(annotation)
        self.asked += is_object
        self.unmasked += lacks
        masks = self._masks and not (lacks and self._box_only)
        found = self._mask(annotation, width, height) if masks else None
        if found is None and masks:
            return False
        mask, extent, area = found or (None, None, math.nan)
        box = annotation.get("bbox")
        box = box.tolist() if isinstance(box, np.ndarray) else list(box) if isinstance(box, tuple) else box
        if mode == BoxMode.XYXY_ABS and isinstance(box, list) and len(box) == 4 and all(map(is_finite, box)):
            box = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        sound = examine_box(box, extent, width, height, self._note)
        if sound is None:
            return False
        if area == 0 and sound[2] > 0 and sound[3] > 0:
            self._note(kinds.EMPTY, "segmentation")
            return False
        if mask is not None:
            annotation["segmentation"] = mask
        if sound is not box:
            annotation["bbox"], annotation["bbox_mode"] = sound, BoxMode.XYWH_ABS
        return True

    def _mask(self, annotation: Record, width: int, height: int) -> Any:
        segmentation = annotation.get("segmentation")
        if isinstance(segmentation, np.ndarray) and segmentation.ndim == 2:
            # as Detectron2 takes it for INPUT.MASK_FORMAT bitmask, but no evaluator
            runs = mask_util.encode(np.asfortranarray(segmentation != 0, np.uint8))
            self._note(kinds.ARRAY, "segmentation")
            segmentation = {"size": list(runs["size"]), "counts": runs["counts"].decode()}
        elif isinstance(segmentation, dict):
            segmentation = {**segmentation}
        return examine_mask(segmentation, width, height, self._note)
