"""What a trial has left in its folder."""

import json
import re
from pathlib import Path

from gan_plugin.metrics import iterations_done

from ..training.trainer import LR_RANGE
from ..training.validation import HISTORY

_PERIODIC = re.compile(r"model_\d{7}\.pth")
BEST, FINAL = "model_best.pth", "model_final.pth"


def history_of(folder: Path) -> dict[int, float]:
    """Finished iterations -> total validation loss; {} before the first measurement."""
    try:
        entries = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {int(entry["iteration"]): float(entry["total"]) for entry in entries}


def ramp_loss(folder: Path) -> float | None:
    """The lowest training loss of an LR-range check."""
    try:
        return min(json.loads((folder / LR_RANGE).read_text(encoding="utf-8"))["loss"], default=None)
    except (OSError, ValueError, KeyError):
        return None


def iterations_of(folder: Path) -> int:
    """Iterations that its metrics.json knows of."""
    return iterations_done(folder)


def weights_of(folder: Path) -> Path:
    """The weights that a trial is known by: the best ones by validation loss where they are kept, else the last."""
    best = folder / BEST
    return best if best.is_file() else folder / FINAL


def checkpoints_of(folder: Path, *, delete: bool = False) -> list[Path]:
    """The checkpoints in a trial's folder, deleted if asked to."""
    files = sorted(folder.glob("*.pth"))
    if delete:
        for file in files:
            file.unlink(missing_ok=True)
    return files


def drop_periodic(folder: Path) -> None:
    """Delete the checkpoints of a finished trial that only served to continue it."""
    for file in checkpoints_of(folder):
        if _PERIODIC.fullmatch(file.name):
            file.unlink(missing_ok=True)


def size_gb(folder: Path) -> float:
    """What all files below `folder` take."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size
        except OSError:
            # another worker has just deleted it
            continue
    return total / 1e9
