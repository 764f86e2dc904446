"""What the data looks like (slides, introduction and section 1), and what the variants predict ("Inferenza")."""

import math
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T

from gan_plugin.data.pictures import read_rgb
from gan_plugin.engine.checkpoint import SafeCheckpointer
from gan_plugin.engine.setup import load_config
from gan_plugin.evaluation.per_image_ap import image_ap, match
from gan_plugin.visualization.curves import INK
from gan_plugin.visualization.panels import (
    AGREEMENT,
    DIFFERENCE_LEGEND,
    INSTANCE_COLOURS,
    INVENTED,
    MISSED,
    Instance,
    confident,
    difference,
    draw_difference,
    draw_instances,
    instances_of_record,
)

from ..config import add_tuning_config
from ..data.mapper import SIDE, encode, mask_box, round_trip
from ..training.outcome import weights_of
from ..training.trainer import TuningTrainer
from .gather import Box, Judged
from .picture import Picture, new_axes, photo, plot, side_by_side

# pixels of a picture that stands alone
_SHOWN = 1240
_SCORE = 0.5
_ROIS = 30


def result_pictures(judged: Mapping[str, Judged], content: Mapping[str, Any], best: str, folder: Path) -> list[Picture]:
    """Panels of the test image whose AP, by the best variant, is the middle one of all.

    Args:
        judged: variant -> predictions.
        content: of the test part.
        best: the best variant.
        folder: of its trial.
    """
    records = {record["image_id"]: record for record in content["records"]}
    aps = {image: image_ap(pairs) for image, pairs in judged[best].pairs.items()}
    ranked = sorted((image for image in aps if not math.isnan(aps[image])), key=lambda image: (aps[image], str(image)))
    # with something to see on it
    shown = [image for image in ranked if aps[image] > 0] or ranked
    if not shown or not Path(records[shown[0]]["file_name"]).is_file():
        return []
    middle = shown[len(shown) // 2]
    record = records[middle]
    image = read_rgb(record["file_name"])
    truth = instances_of_record(record)
    found, sure = confident(judged[best].predictions.get(middle, []), _SCORE)
    said = _said(sure)
    classes = judged[best].classes
    legend = ", ".join(text for text, _ in DIFFERENCE_LEGEND.values())
    pictures = [
        photo(
            "prediction_masks",
            f"{best} on the test image with the middle AP ({aps[middle]:.2f}): truth left; right, masks {said}.",
            side_by_side([_drawn(image, truth, classes), _drawn(image, found, classes)]),
        ),
        photo(
            "prediction_difference",
            f"The same image, truth against predictions {said}: blue, yellow, vermilion and white are {legend}.",
            side_by_side([draw_difference(image, difference(truth, found, image.shape[:2]))], 1, _SHOWN),
        ),
        photo(
            "prediction_boxes",
            f"Object detection: boxes, classes and scores as {best}'s box head gives them, {said}, and not made from "
            "the masks.",
            side_by_side([_with_boxes(image, judged[best].boxes.get(middle, [])[: len(found)], classes)], 1, _SHOWN),
        ),
        iou_matrix(judged[best], middle),
    ]
    others = [name for name in judged if name != best]
    if others:
        pictures.append(_compared(judged, record, image, best, others[0]))
    rois = _rois(folder, record, image)
    return pictures + ([rois] if rois else [])


def _drawn(image: np.ndarray, instances: list[Instance], classes: tuple[str, ...]) -> np.ndarray:
    colours = [INSTANCE_COLOURS[i % len(INSTANCE_COLOURS)] for i in range(len(instances))]
    texts = [classes[i.label] if i.score == 1 else f"{classes[i.label]} {i.score:.2f}" for i in instances]
    return draw_instances(image, [instance.mask for instance in instances], texts, colours)


def _said(sure: bool) -> str:
    """Which predictions are drawn."""
    return f"with a score of {_SCORE:g} or more" if sure else f"(the surest, all with a score below {_SCORE:g})"


def _with_boxes(image: np.ndarray, boxes: list[Box], classes: tuple[str, ...]) -> np.ndarray:
    picture = image.copy()
    for number, box in enumerate(boxes):
        x0, y0, x1, y1 = map(round, box.place)
        shade = tuple(map(int, INSTANCE_COLOURS[number % len(INSTANCE_COLOURS)]))
        cv2.rectangle(picture, (x0, y0), (x1, y1), shade, max(1, image.shape[1] // 700))
        text = f"{classes[box.label]} {box.score:.2f}"
        cv2.putText(
            picture, text, (x0, max(8, y0 - 2)), cv2.FONT_HERSHEY_SIMPLEX, image.shape[1] / 2600 + 0.2, shade, 1
        )
    return picture


def iou_matrix(judged: Judged, image: Any) -> Picture:
    """Mask IoU of every prediction with every object of an image, the matched ones framed."""
    pairs = judged.pairs[image]
    order = np.argsort(-pairs.scores, kind="stable")[:20]
    figure, axes = new_axes(5.4, 4.2)
    axes.grid(False)
    values = pairs.iou[order] if len(order) and pairs.iou.size else np.zeros((1, max(1, len(pairs.truth_classes))))
    shown = axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    matches = match(type(pairs)(pairs.scores, pairs.classes, pairs.truth_classes, pairs.iou))
    for row, column in enumerate(matches[: len(order)]):
        if column >= 0:
            axes.plot(column, row, "s", ms=9, mfc="none", mec="#d55e00", mew=2)
    labels = [f"{judged.classes[pairs.classes[p]]} {pairs.scores[p]:.2f}" for p in order]
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.set_xticks(range(len(pairs.truth_classes)), [judged.classes[c] for c in pairs.truth_classes], fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel("object")
    bar = figure.colorbar(shown)
    bar.ax.tick_params(colors=INK)
    bar.set_label("mask IoU", color=INK)
    caption = "Mask IoU of the 20 surest predictions with the objects; framed: matched (same class, IoU above 0.5)."
    return plot("iou_matrix", caption, figure)


def _compared(
    judged: Mapping[str, Judged], record: Mapping[str, Any], image: np.ndarray, best: str, other: str
) -> Picture:
    sides, aps = [], []
    for name in (other, best):
        result = judged[name]
        found, sure = confident(result.predictions.get(record["image_id"], []), _SCORE)
        sides.append(_drawn(image, found, result.classes))
        here = image_ap(result.pairs[record["image_id"]])
        aps.append(f"{name} {_said(sure)} (AP at IoU 0.5 {here:.3f} here, {result.ap[0]:.3f} overall)")
    return photo(
        "model_vs_model", f"The same image by two variants: {aps[0]} left, {aps[1]} right.", side_by_side(sides)
    )


def _rois(folder: Path, record: Mapping[str, Any], image: np.ndarray) -> Picture | None:
    """The proposals of the RPN, which only running the model shows."""
    weights = weights_of(folder)
    if not weights.is_file():
        return None
    cfg = load_config(
        Namespace(config_file=str(folder / "config.yaml"), opts=["MODEL.DEVICE", "cpu"]), add_tuning_config
    )
    model: Any = TuningTrainer.build_model(cfg).eval()
    SafeCheckpointer(model).load(str(weights), checkpointables=[])
    pixels = detection_utils.read_image(record["file_name"], cfg.INPUT.FORMAT)
    resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST).get_transform(pixels)
    tensor = torch.as_tensor(resize.apply_image(pixels).transpose(2, 0, 1).copy())
    with torch.no_grad():
        batch = model.preprocess_image([{"image": tensor}])
        proposals, _ = model.proposal_generator(batch, model.backbone(batch.tensor))
    scale = image.shape[1] / tensor.shape[2]
    picture = image.copy()
    for box in (proposals[0].proposal_boxes.tensor[:_ROIS] * scale).round().int().tolist():
        cv2.rectangle(picture, box[:2], box[2:], (86, 180, 233), max(1, image.shape[1] // 900))
    caption = f"The {_ROIS} surest of the RPN's regions of interest, before any class is known."
    return photo("rois", caption, side_by_side([picture], 1, _SHOWN))


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
