"""One self-contained HTML page of the crops: to look through them, and to take out the bad ones."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from car_gan.pictures import MANIFEST
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError
from gan_plugin.files import check_exists, read_text, write_whole
from gan_plugin.visualization.page import lossless, save_page, template

from .dataset import read_records
from .filters import REASONS

REVIEW = "review.html"
_HERE = Path(__file__).parent
_THUMBNAIL = 96
_OBSCURED = 8
_DROPPED_EACH = 8


def write_review(folder: Path, most: int = 600) -> Path:
    """Write review.html beside the manifest of a build.

    Args:
        folder: of the build.
        most: crops shown; the least sure ones first, since they want a look the most.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder is no build, or a crop is broken.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} has no {MANIFEST}; name the --output of cars.py build.")
    records = read_records(folder)
    ranked = sorted(records, key=_doubt)
    seen = [record for record in records if record["visible"] < 1]
    page = template("review.html.j2", [_HERE]).render(
        title=folder.resolve().name,
        folder=folder,
        funnel=_read(folder / "funnel.json"),
        rows=_funnel_rows(_read(folder / "funnel.json")),
        count=len(records),
        crops=[_entry(folder, record) for record in ranked[:most]],
        obscured=[_entry(folder, record) for record in sorted(seen, key=lambda r: r["visible"])[:_OBSCURED]],
        dropped=_dropped(folder),
        transparent=records[0]["mode"].startswith("rgba"),
        licence=records[0]["licence"],
        mode=records[0]["mode"],
    )
    return save_page(page, folder / REVIEW)


def _doubt(record: dict[str, Any]) -> tuple[float, float]:
    score = record["detector_score"]
    return (1.0 if score is None else score, record["visible"])


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _funnel_rows(funnel: dict[str, Any]) -> list[tuple[str, int, int]]:
    left, rows = funnel["instances"], []
    for reason, count in funnel["dropped"].items():
        left -= count
        rows.append((REASONS[reason], count, left))
    return rows


def _entry(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    with Image.open(folder / record["file"]) as image:
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        pixels = np.asarray(image)
    score = record["detector_score"]
    said = "" if score is None else f"score {score:.2f}, "
    caption = f"{said}{record['visible']:.0%} seen, {record['width']:.0f}x{record['height']:.0f}"
    return {"file": record["file"], **lossless(pixels, f"Crop {record['file']}.", caption)}


def _dropped(folder: Path) -> list[tuple[str, int, list[dict[str, str]]]]:
    by_reason: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for text in (folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        by_reason[line["reason"]].append(line)
    ordered = [reason for reason in REASONS if reason in by_reason]
    return [(REASONS[reason], len(by_reason[reason]), _pictures(by_reason[reason])) for reason in ordered]


def _pictures(lines: list[dict[str, Any]]) -> list[dict[str, str]]:
    pictures = []
    for line in lines[:_DROPPED_EACH]:
        x0, y0, x1, y1 = line.get("box_truth", (0, 0, 0, 0))
        if x1 <= x0 or not Path(line["image"]).is_file():
            continue
        margin = 0.1 * max(x1 - x0, y1 - y0)
        whole = Image.fromarray(read_rgb(line["image"]))
        part = whole.crop((int(x0 - margin), int(y0 - margin), int(x1 + margin), int(y1 + margin)))
        part.thumbnail((_THUMBNAIL, _THUMBNAIL))
        score = line.get("detector_score")
        said = f"{line['scene']} #{line['instance']}" + ("" if score is None else f", score {score:.2f}")
        pictures.append(lossless(np.asarray(part), f"A dropped car of {line['scene']}.", said))
    return pictures


def apply_rejections(folder: Path, listed: Path) -> int:
    """Take crops out of the manifest, and so out of every later training; their files stay.

    Args:
        folder: of the build.
        listed: a text file with the "file" of a crop on each line, as the review page saves it.

    Returns:
        How many were taken out.

    Raises:
        UserError: a file is missing, or a name is none of the crops'.
    """
    check_exists(listed, "", "save it with the button of the review page")
    records = read_records(folder)
    names = {line.strip() for line in read_text(listed).splitlines() if line.strip()}
    if unknown := sorted(names - {record["file"] for record in records}):
        raise UserError(f"{listed} names {unknown[0]}, which the manifest of {folder} does not have; check both.")
    left = [record for record in records if record["file"] not in names]
    if not left:
        raise UserError(f"{listed} names every crop of {folder}; leave at least one.")
    text = "".join(json.dumps(record) + "\n" for record in left)
    write_whole(folder / MANIFEST, text)
    return len(names)
