"""What a study may say: frozen values, as `parse` makes them from a YAML file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data.parts import Part

Settings = dict[str, Any]
LR, MOMENTUM, WEIGHT_DECAY = "lr", "momentum", "weight_decay"
METHODS, SAMPLERS, PRUNERS = (
    ("hyperband", "optuna"),
    ("random", "tpe", "qmc"),
    ("none", "median", "hyperband", "halving"),
)


@dataclass(frozen=True)
class Babysit:
    """Slides, section 3: overfit a small set, to see that the loss falls."""

    epochs: float = 51
    settings: Settings = field(default_factory=dict)
    # the validation loss has to fall by this share of the one after the first epoch
    fall: float = 0.3
    # iterations of the LR-range check, 0 for none, and its two ends
    lr_range_iterations: int = 100
    lr_range: Sequence[float] = (1e-6, 1.0)


@dataclass(frozen=True)
class Coarse:
    """Slides, section 4: a few learning rates for each level of some factors."""

    lr: Sequence[float] = (1e-3, 1e-4, 1e-5, 1e-6)
    epochs: float = 15
    # "coordinate": one factor after the other, in their order; "factorial": all combinations
    procedure: str = "coordinate"
    # factor -> level -> settings; a value may be a mapping from the levels of another factor
    factors: dict[str, dict[str, Settings]] = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Fine:
    """Slides, section 5: Hyperband for each arm, usually an optimizer."""

    epochs: float = 20
    eta: float = 3
    method: str = "hyperband"
    sampler: str = "random"
    # method "optuna" only
    trials: int = 20
    pruner: str = "none"
    # arm -> {"settings": ..., "space": {name or config key: [low, high]}, "linear": [names]}
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Confirm:
    """Train the best few of the fine search again with other seeds: is the order more than chance?"""

    top: int = 2
    seeds: Sequence[int] = (1, 2, 3)


@dataclass(frozen=True)
class Full:
    """Slides, section 6: the best setting on all images, and variants of it."""

    epochs: float = 20
    patience: int = 3
    # variant -> settings; "from" names the variant whose kept weights it continues from
    variants: dict[str, Settings] = field(default_factory=dict)
    # "search" takes the winner of the fine search, or of the coarse one; "none" only what `settings` say
    best_from: str = "search"
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """What the search compares trials by."""

    metric: str = "val_loss/total"
    direction: str = "minimize"

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
    hours: float = 0.0
    trial_minutes: float = 0.0
    memory_gb: float = 0.0
    disk_gb: float = 0.0


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
