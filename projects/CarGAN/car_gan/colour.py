"""The key colour: what every pixel outside a car is set to."""

import json
from collections.abc import Sequence
from pathlib import Path

from gan_plugin.errors import UserError

Colour = tuple[int, int, int]

# the source document's bright green, section 2
GREEN: Colour = (51, 255, 51)
MANIFEST, SAMPLES = "manifest.jsonl", "samples.json"
# where a build and `cars.py sample` put their pictures, beside what they note of them
PICTURES = ("crops", "cars")


def checked_colour(values: Sequence[int]) -> Colour:
    """`values` as three whole numbers of red, green and blue.

    Raises:
        UserError: they are not three whole numbers from 0 to 255.
    """
    if len(values) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise UserError(
            f"The key colour {tuple(values)} is not three whole numbers from 0 to 255; write (51, 255, 51)."
        )
    return values[0], values[1], values[2]


def noted_key(folder: Path) -> Colour | None:
    """The key colour that a build, or `cars.py sample`, has noted of the pictures in `folder`; None if neither has."""
    try:
        if (folder / MANIFEST).is_file():
            with open(folder / MANIFEST, encoding="utf-8-sig") as lines:
                key = json.loads(next(lines)).get("key")
        else:
            key = json.loads((folder / SAMPLES).read_text(encoding="utf-8")).get("key")
    except (OSError, ValueError, StopIteration, AttributeError):
        key = None
    if key is None and folder.name in PICTURES:
        return noted_key(folder.parent)
    return None if key is None else checked_colour(key)
