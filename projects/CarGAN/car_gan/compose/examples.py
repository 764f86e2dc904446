"""One self-contained HTML page with some of the composed scenes and their masks."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle_tools

from car_gan.matting import leak_map
from gan_plugin.data.pictures import read_rgb
from gan_plugin.visualization.page import lossless, save_page, template

from .samples import SampleBank

EXAMPLES = "examples.html"
_WIDEST = 900
_LEAK_SAMPLES = 256
# Okabe and Ito's vermilion: a new car; their sky blue: an annotated object
_NEW, _OLD = (213, 94, 0), (86, 180, 233)


def write_examples(folder: Path, bank: SampleBank | None = None, most: int = 6) -> Path:
    """Write examples.html into a folder that `compose` has filled.

    Args:
        folder: of the scenes.
        bank: the samples, for the leak map; None leaves it out.
        most: scenes shown, those with the most new cars.

    Returns:
        The path of the page.
    """
    content = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    ranked = sorted((image for image in content["images"] if image["synthetic"]), key=lambda i: -i["synthetic"])
    scenes = [_scene(folder, image, by_image.get(image["id"], [])) for image in ranked[:most]]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    page = template("examples.html.j2", [Path(__file__).parent]).render(
        title=folder.resolve().name,
        summary=summary,
        scenes=scenes,
        legend=[("new car", _NEW), ("annotated", _OLD)],
        leak=_leak(bank) if bank else None,
    )
    return save_page(page, folder / EXAMPLES)


def _scene(folder: Path, image: dict[str, Any], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    pixels = read_rgb(folder / image["file_name"])
    drawn = pixels.copy()
    for annotation in annotations:
        mask = _mask(annotation, image)
        colour = _NEW if annotation["synthetic"] else _OLD
        drawn[mask] = (0.55 * drawn[mask] + 0.45 * np.array(colour)).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, colour, 1)
    count = image["synthetic"]
    named = f"{image['source_image']}: {count} new {'car' if count == 1 else 'cars'}"
    return {
        "title": named,
        "pictures": [
            lossless(_fit(pixels), f"The scene {named}.", "The composed scene"),
            lossless(_fit(drawn), f"Its masks, {named}.", "Its annotation, as the JSON has it"),
        ],
    }


def _leak(bank: SampleBank) -> dict[str, str] | None:
    pictures = bank.on_key(_LEAK_SAMPLES)
    if not pictures:
        return None
    leak, mean = leak_map(pictures, bank.key)
    shown = cv2.applyColorMap(np.rint(leak * 255).astype(np.uint8), cv2.COLORMAP_CIVIDIS)[..., ::-1]
    scale = max(1, 256 // leak.shape[1])
    large = np.ascontiguousarray(shown.repeat(scale, 0).repeat(scale, 1))
    caption = (
        f"Mean over {len(pictures)} samples; {mean:.3f} over all pixels. Dark blue: always clearly car or clearly key "
        "colour. Yellow: always half of both, which keys badly."
    )
    return lossless(large, "Leak map: where samples are neither car nor key colour.", caption)


def _mask(annotation: dict[str, Any], image: dict[str, Any]) -> np.ndarray:
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        segmentation = rle_tools.merge(rle_tools.frPyObjects(segmentation, image["height"], image["width"]))
    return rle_tools.decode(segmentation).astype(bool)


def _fit(pixels: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(pixels)
    picture.thumbnail((_WIDEST, _WIDEST))
    return np.asarray(picture)
