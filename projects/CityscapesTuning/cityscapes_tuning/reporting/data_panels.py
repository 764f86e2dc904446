"""What the data looks like (slides, introduction and section 1)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gan_plugin.data.pictures import read_rgb
from gan_plugin.visualization.panels import (
    AGREEMENT,
    DIFFERENCE_LEGEND,
    INSTANCE_COLOURS,
    INVENTED,
    MISSED,
    draw_difference,
    draw_instances,
    instances_of_record,
)

from ..data.mini_mask import SIDE, encode, mask_box, round_trip
from .picture import Picture, photo, side_by_side

_SHOWN = 900


def data_pictures(content: Mapping[str, Any]) -> list[Picture]:
    """Panels of the image of a part that has the most classes, and of its largest instance.

    Args:
        content: of the part, as `read_part` gives it.
    """
    classes = content["metadata"]["thing_classes"]
    record = max(content["records"], key=_variety)
    if not record["annotations"] or not Path(record["file_name"]).is_file():
        return []
    image = read_rgb(record["file_name"])
    truth = instances_of_record(record)
    masks = [instance.mask for instance in truth]
    names = [classes[instance.label] for instance in truth]
    by_instance = [INSTANCE_COLOURS[i % len(INSTANCE_COLOURS)] for i in range(len(truth))]
    by_class = [INSTANCE_COLOURS[instance.label % len(INSTANCE_COLOURS)] for instance in truth]
    blank = np.zeros_like(image)
    segmented = draw_instances(image, masks, names, by_instance)
    return [
        photo(
            "image_and_instances",
            "An image of the test part and its annotated instances.",
            side_by_side([image, segmented]),
        ),
        photo(
            "semantic_and_instance",
            "Semantic segmentation (one colour a class) cannot tell two neighbours of a class apart; instance "
            "segmentation (one colour an object) does.",
            side_by_side([_flat(blank, masks, by_class), _flat(blank, masks, by_instance)]),
        ),
        photo(
            "instance_masks",
            "The largest instances, one binary mask each, drawn from the polygons in the file's order.",
            side_by_side([np.where(m[..., None], 255, 0).astype(np.uint8).repeat(3, 2) for m in _largest(masks, 4)]),
        ),
        photo(
            "boxes_from_masks",
            "Boxes computed from the masks, not read from a file.",
            side_by_side([_boxes(draw_instances(image, masks, names, by_instance), masks, by_instance)], 1, _SHOWN),
        ),
        *_mini_masks(image, masks),
    ]


def _variety(record: Mapping[str, Any]) -> tuple[int, int]:
    labels = [a["category_id"] for a in record["annotations"] if not a.get("iscrowd")]
    return len(set(labels)), len(labels)


def _largest(masks: list[np.ndarray], count: int) -> list[np.ndarray]:
    return sorted(masks, key=lambda mask: -int(mask.sum()))[:count]


def _flat(blank: np.ndarray, masks: list[np.ndarray], colours: list[Any]) -> np.ndarray:
    picture = blank.copy()
    for mask, colour in zip(masks, colours, strict=True):
        picture[mask] = colour
    return picture


def _boxes(picture: np.ndarray, masks: list[np.ndarray], colours: list[Any]) -> np.ndarray:
    picture = picture.copy()
    for mask, colour in zip(masks, colours, strict=True):
        x0, y0, x1, y1 = mask_box(mask)
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), tuple(map(int, colour)), 1)
    return picture


def _mini_masks(image: np.ndarray, masks: list[np.ndarray]) -> list[Picture]:
    largest = _largest(masks, 1)[0]
    x0, y0, x1, y1 = mask_box(largest)
    cut, back = largest[y0:y1, x0:x1], round_trip(largest)[y0:y1, x0:x1]
    square = (SIDE * 6, SIDE * 6)
    tiles = [
        cv2.resize(part.astype(np.uint8) * 255, square, interpolation=cv2.INTER_NEAREST)[..., None].repeat(3, 2)
        for part in (cut, encode(largest), back)
    ]
    rebuilt = [round_trip(mask) for mask in masks]
    everything, again = np.any(masks, axis=0), np.any(rebuilt, axis=0)
    difference = np.select([everything & again, everything, again], [AGREEMENT, MISSED, INVENTED], 0).astype(np.uint8)
    lost, gained = DIFFERENCE_LEGEND[MISSED][0], DIFFERENCE_LEGEND[INVENTED][0]
    return [
        photo(
            "mini_mask",
            f"The largest instance's mask in its box, as a {SIDE}x{SIDE} mini-mask, and expanded again (all stretched "
            "to one square).",
            side_by_side(tiles, 3, 300),
        ),
        photo(
            "reconstruction",
            f"All masks of the image, and what mini-masks leave of them: blue is kept, yellow lost ({lost}), "
            f"vermilion added ({gained}).",
            side_by_side(
                [_flat(np.zeros_like(image), [everything], [(255, 255, 255)]), draw_difference(image, difference)]
            ),
        ),
    ]
