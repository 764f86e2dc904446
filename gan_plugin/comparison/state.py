"""How far a run has come, read from its folder: whoever or whatever ended it."""

import re
from enum import Enum, auto
from pathlib import Path

from gan_plugin.metrics import final_scores

from .plan import WEIGHTS

# says that the evaluation has ended without any metric that is defined
_NO_SCORES = "no_scores.txt"
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


def settle(folder: Path, iterations: int) -> None:
    """Note that a run has ended well, and drop the checkpoints that only served to continue it."""
    if not final_scores(folder, iterations):
        (folder / _NO_SCORES).write_text("The evaluation gave no metric: the model has detected nothing.\n")
    for file in folder.glob("model_*.pth"):
        if _PERIODIC.fullmatch(file.name) and (folder / WEIGHTS).is_file():
            file.unlink()
