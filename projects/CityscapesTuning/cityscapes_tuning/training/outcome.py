"""How a trial's training has ended, as a small file that the study's workers read."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gan_plugin.errors import history, worker_death
from gan_plugin.files import write_whole

FILE = "outcome.json"
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
    write_whole(Path(folder) / FILE, lambda file: file.write(content), "Free some disk space and resume the study.")


def read_outcome(folder: Path) -> Outcome | None:
    """What `write_outcome` left; None if there is nothing usable."""
    try:
        content: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Outcome(**content)
    except (OSError, ValueError, TypeError):
        return None


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
