"""The adapter for a path, by its format."""

from pathlib import Path

from coigan.choices import FORMATS
from gan_plugin.errors import UserError

from .base import Source
from .cityscapes import CityscapesSource
from .coco import CocoSource
from .folders import FolderSource
from .severstal import SeverstalSource


def open_source(path: str | Path, kind: str = "auto", images: str = "") -> Source:
    """Open the data set at `path`.

    Args:
        path: a folder; of COCO the JSON.
        kind: one of FORMATS; "auto" looks at what is there.
        images: of COCO the folder of pictures, if it is not beside the JSON.

    Raises:
        UserError: the format is unknown or cannot be told, or the data set is damaged.
    """
    root = Path(path)
    if kind not in FORMATS:
        raise UserError(f"There is no format {kind!r}; use one of {', '.join(FORMATS)}.")
    if kind == "auto":
        kind = _told(root)
    if kind == "severstal":
        return SeverstalSource(root)
    if kind == "folders":
        return FolderSource(root)
    return CocoSource(root, images) if kind == "coco" else CityscapesSource(root)


def recognised(root: Path) -> list[str]:
    """The formats that what is at `root` looks like: none, one, or several."""
    if root.suffix == ".json" and root.is_file():
        return ["coco"]
    signs = {"severstal": root / "train.csv", "cityscapes": root / "leftImg8bit", "folders": root / "masks"}
    return [kind for kind, sign in signs.items() if sign.exists()]


def _told(root: Path) -> str:
    found = recognised(root)
    if len(found) != 1:
        raise UserError(
            f"{root} is no data set that can be told by what it holds (train.csv, leftImg8bit/ or masks/, or a JSON); "
            "name it with --format."
        )
    return found[0]
