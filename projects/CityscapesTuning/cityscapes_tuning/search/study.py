"""What a study may say: frozen values, as `parse` makes them from a YAML file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data.parts import Part

Settings = dict[str, Any]


def _number(default: Any, **bounds: float) -> Any:
    """A field that holds a number, or a list of them, within the bounds "least" or "above"."""
    return field(default=default, metadata=bounds)


def _choice(default: str, choices: Sequence[str]) -> Any:
    return field(default=default, metadata={"choices": choices})


LR, MOMENTUM, WEIGHT_DECAY = "lr", "momentum", "weight_decay"
METHODS, SAMPLERS, PRUNERS = (
    ("hyperband", "optuna"),
    ("random", "tpe", "qmc"),
    ("none", "median", "hyperband", "halving"),
)


@dataclass(frozen=True)
class Babysit:
    """Slides, section 3: overfit a small set, to see that the loss falls."""

    epochs: float = _number(51, above=0)
    settings: Settings = field(default_factory=dict)
    # the validation loss has to fall by this share of the one after the first epoch
    fall: float = _number(0.3, least=0)
    # iterations of the LR-range check, 0 for none, and its two ends
    lr_range_iterations: int = _number(100, least=0)
    lr_range: Sequence[float] = _number((1e-6, 1.0), above=0)


@dataclass(frozen=True)
class Coarse:
    """Slides, section 4: a few learning rates for each level of some factors."""

    lr: Sequence[float] = _number((1e-3, 1e-4, 1e-5, 1e-6), above=0)
    epochs: float = _number(15, above=0)
    # "coordinate": one factor after the other, in their order; "factorial": all combinations
    procedure: str = _choice("coordinate", ("coordinate", "factorial"))
    # factor -> level -> settings; a value may be a mapping from the levels of another factor
    factors: dict[str, dict[str, Settings]] = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """What the fine search varies, and what it keeps."""

    settings: Settings = field(default_factory=dict)
    # name or config key: [low, high]; for lr also "auto", which is taken from the coarse search
    space: dict[str, Any] = field(default_factory=dict)
    # of `space`, those that are searched on a linear scale
    linear: Sequence[str] = ()


@dataclass(frozen=True)
class Fine:
    """Slides, section 5: Hyperband for each arm, usually an optimizer."""

    epochs: float = _number(20, above=0)
    eta: float = _number(3, above=1)
    method: str = _choice("hyperband", METHODS)
    sampler: str = _choice("random", SAMPLERS)
    # method "optuna" only
    trials: int = _number(20, least=1)
    pruner: str = _choice("none", PRUNERS)
    arms: dict[str, Arm] = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Confirm:
    """Train the best few of the fine search again with other seeds: is the order more than chance?"""

    top: int = _number(2, least=1)
    seeds: Sequence[int] = _number((1, 2, 3), least=0)


@dataclass(frozen=True)
class Full:
    """Slides, section 6: the best setting on all images, and variants of it."""

    epochs: float = _number(20, above=0)
    patience: int = _number(3, least=0)
    # variant -> settings; "from" names the variant whose kept weights it continues from
    variants: dict[str, Settings] = field(default_factory=dict)
    # "search" takes the winner of the fine search, or of the coarse one; "none" only what `settings` say
    best_from: str = _choice("search", ("search", "none"))
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """What the search compares trials by."""

    metric: str = "val_loss/total"
    direction: str = _choice("minimize", ("minimize", "maximize"))

    @property
    def is_loss(self) -> bool:
        return self.metric.startswith("val_loss/")

    def score(self, value: float | None) -> float:
        """The value so that less is better; infinite where there is none."""
        if value is None or not math.isfinite(value):
            return math.inf
        return value if self.direction == "minimize" else -value


@dataclass(frozen=True)
class Budget:
    """Limits; 0 for none."""

    # of computing, over all trials
    hours: float = _number(0.0, least=0)
    trial_minutes: float = _number(0.0, least=0)
    memory_gb: float = _number(0.0, least=0)
    disk_gb: float = _number(0.0, least=0)


@dataclass(frozen=True)
class Data:
    """The section `data`: see `parse_parts`."""

    preset: str = ""
    parts: dict[str, Any] = field(default_factory=dict)
    classes: int = 10
    # by default the official preset may leak, since the truth of the official test set is not public
    allow_leaks: bool | None = None


@dataclass(frozen=True)
class Phases:
    """The section `phases`; those that are None are left out."""

    babysit: Babysit | None = None
    coarse: Coarse | None = None
    fine: Fine | None = None
    confirm: Confirm | None = None
    full: Full | None = None


@dataclass(frozen=True)
class Content:
    """A study's YAML file, as it is written."""

    config: str
    phases: Phases
    name: str = "study"
    data: Data = field(default_factory=Data)
    settings: Settings = field(default_factory=dict)
    epoch_iterations: int = _number(0, least=0)
    val_images: int = _number(0, least=0)
    seed: int = _number(0, least=0)
    objective: Objective = field(default_factory=Objective)
    budget: Budget = field(default_factory=Budget)
    storage: str = ""
    gpus_per_trial: int = _number(1, least=1)


@dataclass(frozen=True)
class Study:
    """Everything that decides what a study does."""

    name: str
    config: str
    parts: dict[str, Part]
    classes: tuple[str, ...]
    allow_leaks: bool
    settings: Settings
    # iterations; 0 for one pass through the training images
    epoch_iterations: int
    val_images: int
    seed: int
    objective: Objective
    budget: Budget
    storage: str
    gpus_per_trial: int
    phases: dict[str, Any]
    text: str
