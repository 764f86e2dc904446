"""A data set that inpaint.py prepare has made, as training reads it."""

import json
from dataclasses import dataclass
from pathlib import Path

from gan_plugin.errors import UserError

PREPARED = "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
        root: its folder.
        classes: names in the order of the mask channels.
        tile: side of the tiles.
    """

    root: Path
    classes: tuple[str, ...]
    tile: int

    def tiles(self, kind: str) -> list[Path]:
        """The tiles of "base" (training, without defects), "train" or "test", sorted."""
        return sorted((self.root / kind).glob("*.png"))

    def objects(self, number: int) -> Path:
        """The object store of class `number`, of the training images."""
        return self.root / "objects" / str(number)


def open_prepared(root: str | Path) -> Prepared:
    """The prepared data set in `root`.

    Raises:
        UserError: there is none.
    """
    file = Path(root) / PREPARED
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Prepared(Path(root), tuple(content["classes"]), content["options"]["tile"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root} holds no prepared data set; make one with inpaint.py prepare.") from error
