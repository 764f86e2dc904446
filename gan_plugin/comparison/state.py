"""How far a run has come, read from its folder: whoever or whatever ended it."""

import json
import re
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path

from .plan import WEIGHTS

# says that the evaluation has ended without any metric that is defined
_NO_SCORES = "no_scores.txt"
# enough for the last few lines, which are asked for twice a second
_TAIL = 1 << 16
_PERIODIC = re.compile(r"model_\d{7}\.pth")


class State(Enum):
    """What is left to do for a run."""

    TRAIN = auto()
    EVALUATE = auto()
    FINISHED = auto()


def state_of(folder: Path, iterations: int) -> State:
    """What is left to do in `folder` for a run of `iterations`."""
    if final_scores(folder, iterations) or (folder / _NO_SCORES).is_file():
        return State.FINISHED
    return State.EVALUATE if (folder / WEIGHTS).is_file() else State.TRAIN


def final_scores(folder: Path, iterations: int) -> dict[str, float]:
    """All metrics of the evaluation after the last iteration, as in metrics.json; {} if there is none.

    An evaluation has a line of its own, without a loss: at iteration `iterations` when training has ended with it, and
    at the one of the weights, `iterations` - 1, if it was made up for later.
    """
    scores: dict[str, float] = {}
    for line in _lines(folder):
        if line.pop("iteration", -1) >= iterations - 1 and "total_loss" not in line and any("/" in key for key in line):
            scores = {key: value for key, value in line.items() if "/" in key}
    return scores


def iterations_done(folder: Path) -> int:
    """Iterations that the end of metrics.json knows of."""
    return max((int(line["iteration"]) + 1 for line in _lines(folder, _TAIL) if "total_loss" in line), default=0)


def _lines(folder: Path, most_bytes: int | None = None) -> Iterator[dict[str, float]]:
    try:
        content = (folder / "metrics.json").read_bytes()
    except FileNotFoundError:
        return
    for text in content[-(most_bytes or len(content)) :].decode(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            # cut off by a kill
            continue
        if isinstance(line, dict) and isinstance(line.get("iteration"), int):
            yield {key: value for key, value in line.items() if isinstance(value, int | float)}


def settle(folder: Path, iterations: int) -> None:
    """Note that a run has ended well, and drop the checkpoints that only served to continue it."""
    if not final_scores(folder, iterations):
        (folder / _NO_SCORES).write_text("The evaluation gave no metric: the model has detected nothing.\n")
    for file in folder.glob("model_*.pth"):
        if _PERIODIC.fullmatch(file.name) and (folder / WEIGHTS).is_file():
            file.unlink()
