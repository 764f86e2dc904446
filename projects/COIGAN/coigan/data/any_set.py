"""Whatever a user names as a data set, as a line set: prepared, a line set already, or of a known format."""

from pathlib import Path

from .convert import convert
from .line_sets import LineSet
from .line_store import LINES
from .prepared import PREPARED
from .sources import FORMATS, open_source, recognised


def open_any(path: str | Path, scratch: Path, kind: str = "auto", images: str = "", workers: int = 1) -> LineSet:
    """The annotated images at `path`.

    Args:
        path: a prepared data set, whose whole images are meant; a line set; or whatever `open_source` opens.
        scratch: an empty folder, which gets the records of the last, that name the pictures where they are; it has to
            last as long as the set is read.
        kind, images: see `open_source`.
        workers: processes that read the last, -1 for one a core.

    Raises:
        UserError: there is no data set, or it is damaged.
    """
    root = Path(path)
    if (root / PREPARED).is_file():
        return LineSet(root / "converted")
    if (root / LINES).exists() or (kind == FORMATS[0] and not recognised(root)):
        return LineSet(root)
    convert(open_source(root, kind, images), scratch, workers=workers, copy=False)
    return LineSet(scratch)
