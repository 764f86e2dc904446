"""What a trial leaves in its folder, for the study's workers to read: how its training has ended, losses, weights."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gan_plugin.engine.checkpoint import BEST, FINAL, SUFFIX, checkpoint_file, periodic_checkpoints
from gan_plugin.errors import history, worker_death
from gan_plugin.files import write_whole
from gan_plugin.metrics import iterations_done

FILE, HISTORY, LR_RANGE = "outcome.json", "validation.json", "lr_range.json"
FINISHED, STOPPED_EARLY, DIVERGED, OUT_OF_MEMORY = "finished", "stopped early", "diverged", "out of memory"


@dataclass(frozen=True)
class Outcome:
    """What is known at the end of a training.

    Attributes:
        status: FINISHED, STOPPED_EARLY, DIVERGED or OUT_OF_MEMORY.
        iterations: finished ones.
        target: those that were asked for.
        reason: a sentence, for what went wrong.
        scores: flat metrics of the evaluation at the end, in percent.
    """

    status: str
    iterations: int
    target: int
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return self.status in (FINISHED, STOPPED_EARLY)


def write_outcome(outcome: Outcome, folder: str | Path) -> None:
    """Write it to `folder`, whole or not at all."""
    content = json.dumps(asdict(outcome), indent=1).encode()
    write_whole(Path(folder) / FILE, content, "Free some disk space and resume the study.")


def read_outcome(folder: Path) -> Outcome | None:
    """What `write_outcome` left; None if there is nothing usable."""
    try:
        content: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Outcome(**content)
    except (OSError, ValueError, TypeError):
        return None


def trained(folder: Path) -> int:
    """Iterations that a trial has really done, by its outcome or its metrics."""
    outcome = read_outcome(folder)
    return max(outcome.iterations if outcome else 0, iterations_done(folder))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or one that led to it, says that memory has run out, on a GPU or on the CPU."""
    return any(_says_so(former) for former in history(error))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    known = (
        "DefaultCPUAllocator: can't allocate memory",
        "DefaultCPUAllocator: not enough memory",
        "CUDA out of memory",
    )
    # OpenCV's own allocator, and a data loading worker that the kernel has killed
    opencv = "Insufficient memory" in text and "OpenCV" in text
    return any(words in text for words in known) or opencv or "Killed" in (worker_death(error) or "")


def history_of(folder: Path) -> list[dict[str, float]]:
    """{"iteration": finished ones, "total": validation loss, "<loss>": value}, ...; [] before the first measurement."""
    try:
        return json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []


def ramp_loss(folder: Path) -> float | None:
    """The lowest training loss of an LR-range check."""
    try:
        return min(json.loads((folder / LR_RANGE).read_text(encoding="utf-8"))["loss"], default=None)
    except (OSError, ValueError, KeyError):
        return None


def weights_of(folder: Path) -> Path:
    """The weights that a trial is known by: the best ones by validation loss where they are kept, else the last."""
    best = checkpoint_file(folder, BEST)
    return best if best.is_file() else checkpoint_file(folder, FINAL)


def checkpoints_of(folder: Path, *, delete: bool = False) -> list[Path]:
    """The checkpoints in a trial's folder, deleted if asked to."""
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if delete:
        for file in files:
            file.unlink(missing_ok=True)
    return files


def drop_periodic(folder: Path) -> None:
    """Delete the checkpoints of a finished trial that only served to continue it."""
    for file in periodic_checkpoints(folder).values():
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
