"""The pictures of a comparison's report as small files, for a page of Markdown."""

import base64
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from gan_plugin.files import write_whole

from .pictures import paired_pictures

_HEIGHT = 200
_GAP = 6
_MOST_PIXELS = 900
_COLOURS = "In the differences blue is right, orange too much, yellow missed."
_ADVICE = "Free some disk space, or choose another folder."


def write_pictures(results: Mapping[str, Any], comparison: Path, stem: Path, arms: Sequence[str]) -> list[list[str]]:
    """For each arm its greatest gain and its greatest loss of one object, and what its discriminator says.

    Args:
        results: as results.json holds them.
        comparison: the --output of tools/compare.py, with its runs.
        stem: what the names of the files begin with, such as docs/results/street for street_paper_gain.jpg.
        arms: those wanted.

    Returns:
        [file name, caption] of each picture; of an arm without pictures the reason, with "" for the file name.

    Raises:
        UserError: a file cannot be written.
    """
    found = paired_pictures({**results, "plan": {**results["plan"], "arms": list(arms)}}, comparison)
    written = [["", note] for note in found["duel_notes"]]
    for section in found["duels"]:
        kinds = {"gain": " gains most", "loss": " loses most"}
        for kind, ending in kinds.items():
            rows = [row for group in section["groups"] if group["title"].endswith(ending) for row in group["rows"]]
            if rows:
                file = stem.with_name(f"{stem.name}_{section['who']}_{kind}.jpg")
                _save(_strip(rows[0]["tiles"]), file)
                tiles = ", ".join(tile["caption"] for tile in rows[0]["tiles"])
                written.append([file.name, f"{rows[0]['caption']} From left to right: {tiles}. {_COLOURS}"])
        if section["verdict"]:
            file = stem.with_name(f"{stem.name}_{section['who']}_verdicts.jpg")
            picture = _opened(section["verdict"])
            picture.thumbnail((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.LANCZOS)
            _save(picture, file)
            written.append([file.name, section["verdict"]["caption"]])
    return written


def _opened(embedded: Mapping[str, str]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(embedded["src"].partition(",")[2]))).convert("RGB")


def _strip(tiles: Sequence[Mapping[str, str]]) -> Image.Image:
    """All tiles side by side, of equal height."""
    pictures = [_opened(tile) for tile in tiles]
    scaled = [p.resize((max(1, round(p.width * _HEIGHT / p.height)), _HEIGHT)) for p in pictures]
    strip = Image.new("RGB", (sum(p.width + _GAP for p in scaled) - _GAP, _HEIGHT), "white")
    left = 0
    for picture in scaled:
        strip.paste(picture, (left, 0))
        left += picture.width + _GAP
    return strip


def _save(picture: Image.Image, file: Path) -> None:
    write_whole(file, partial(picture.save, format="JPEG", quality=85), _ADVICE)
