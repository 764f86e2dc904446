"""What a study may say, as `load_study` makes it from a YAML file; `schema` tells what is wrong with it."""

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from detectron2.config import CfgNode
from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from gan_plugin.comparison.run import key_values
from gan_plugin.config_files import look_up, read_yaml
from gan_plugin.engine.check_config import check_values
from gan_plugin.engine.setup import merge_options
from gan_plugin.errors import UserError
from gan_plugin.files import check_exists

from ..config import check_tuning
from ..data.parts import Part, class_preset, parse_parts
from ..schema import Name, Numbers, Section, Settings, Text, Whole, refuse, shortened, unknown_key, validated
from . import PHASES

LR, MOMENTUM, WEIGHT_DECAY = "lr", "momentum", "weight_decay"
_SHORT = {LR: "SOLVER.BASE_LR", MOMENTUM: "SOLVER.MOMENTUM", WEIGHT_DECAY: "SOLVER.WEIGHT_DECAY"}
_LIMITS = {LR: "more than 0", MOMENTUM: "0 or more and less than 1", WEIGHT_DECAY: "0 or more"}
_INTERVAL = "give [low, high] with 0 < low < high, and write 1e-4 as 1.0e-4, or YAML reads it as text"

Positive = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Count = Annotated[Whole, Field(ge=0)]
Some = Annotated[Whole, Field(ge=1)]


def _interval(value: Any) -> Any:
    good = isinstance(value, list | tuple) and len(value) == 2 and all(type(x) in (int, float) for x in value)
    if value != "auto" and not (good and 0 < value[0] < value[1] < math.inf):
        raise refuse("value", _INTERVAL)
    return value


def _metric(value: str) -> str:
    if not all(value.partition("/")):
        raise refuse("value", "set it to val_loss/total, or to a score such as segm/AP")
    return value


class Babysit(Section):
    """Slides, section 3: overfit a small set, to see that the loss falls."""

    epochs: Positive = 51
    settings: Settings = {}
    # the validation loss has to fall by this share of the one after the first epoch
    fall: Amount = 0.3
    # iterations of the LR-range check, 0 for none, and its two ends
    lr_range_iterations: Count = 100
    lr_range: Annotated[Any, AfterValidator(_interval)] = (1e-6, 1.0)


class Coarse(Section):
    """Slides, section 4: a few learning rates for each level of some factors."""

    lr: Annotated[Numbers, Field(min_length=1)] = (1e-3, 1e-4, 1e-5, 1e-6)
    epochs: Positive = 15
    # "coordinate": one factor after the other, in their order; "factorial": all combinations
    procedure: Literal["coordinate", "factorial"] = "coordinate"
    # factor -> level -> settings; a value may be a mapping from the levels of another factor
    factors: dict[Name, Annotated[dict[Name, Settings], Field(min_length=1)]] = {}
    settings: Settings = {}


class Arm(Section):
    """What the fine search varies, and what it keeps."""

    settings: Settings = {}
    # name or config key: [low, high]; for lr also "auto", which is taken from the coarse search
    space: dict[str, Annotated[Any, AfterValidator(_interval)]] = {}
    # of `space`, those that are searched on a linear scale
    linear: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Arm":
        for name in self.linear:
            if name not in self.space:
                raise refuse("key", f"has {shortened(name)} in `linear`, which its `space` does not have; take it out.")
        for name, interval in self.space.items():
            if interval == "auto" and name != LR:
                raise refuse("key", f"has {name}: auto in `space`, which only lr may be; {_INTERVAL}.")
            if name == MOMENTUM and interval[1] >= 1:
                raise refuse("key", f"has {name}: {list(interval)} in `space`; a momentum is less than 1.")
        return self


class Fine(Section):
    """Slides, section 5: Hyperband for each arm, usually an optimizer."""

    epochs: Positive = 20
    eta: Annotated[float, Field(gt=1)] = 3
    method: Literal["hyperband", "optuna"] = "hyperband"
    sampler: Literal["random", "tpe", "qmc"] = "random"
    # method "optuna" only
    trials: Some = 20
    pruner: Literal["none", "median", "hyperband", "halving"] = "none"
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    settings: Settings = {}

    @model_validator(mode="after")
    def _fits(self) -> "Fine":
        if self.method == "hyperband" and self.epochs < 1:
            raise refuse("key", f"has epochs {self.epochs:g}; Hyperband needs 1 or more.")
        return self


class Confirm(Section):
    """Train the best few of the fine search again with other seeds: is the order more than chance?"""

    top: Some = 2
    seeds: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (1, 2, 3)


class Full(Section):
    """Slides, section 6: the best setting on all images, and variants of it."""

    epochs: Positive = 20
    patience: Count = 3
    # variant -> settings; "from" names the variant whose kept weights it continues from
    variants: Annotated[dict[Name, Settings], Field(min_length=1)]
    # "search" takes the winner of the fine search, or of the coarse one; "none" only what `settings` say
    best_from: Literal["search", "none"] = "search"
    settings: Settings = {}

    @model_validator(mode="after")
    def _fits(self) -> "Full":
        for name in self.variants:
            seen = [name]
            while parent := self.variants[seen[-1]].get("from"):
                # it may be anything that YAML writes, also what is no key
                if parent not in list(self.variants) or parent in seen:
                    said = f"{seen[-1]} continues from {shortened(parent)}, which is no variant before it."
                    raise refuse("key", f"is wrong: the variant {said}")
                seen.append(parent)
        return self


class Objective(Section):
    """What the search compares trials by: a scalar of the validation, or a score of an evaluator."""

    metric: Annotated[Text, AfterValidator(_metric)] = "val_loss/total"
    # by default losses are minimised and scores maximised; the other way round is refused
    direction: Literal["", "minimize", "maximize"] = ""

    @model_validator(mode="after")
    def _fits(self) -> "Objective":
        right = "minimize" if self.is_loss else "maximize"
        if self.direction not in ("", right):
            better = "lower" if self.is_loss else "higher"
            said = f"but the {better} {self.metric}, the better; set it to {right}, or leave it away."
            raise refuse("below", f"direction is {self.direction!r}, {said}")
        return self

    @property
    def is_loss(self) -> bool:
        return self.metric.startswith("val_loss/")

    @property
    def loss(self) -> str:
        """Which validation loss early stopping and the best weights go by: the one asked for, or all together."""
        return self.metric.partition("/")[2] if self.is_loss else "total"

    def score(self, value: float | None) -> float:
        """The value so that less is better; infinite where there is none."""
        if value is None or not math.isfinite(value):
            return math.inf
        return value if self.is_loss else -value


class Budget(Section):
    """Limits; 0 for none."""

    # of computing, over all trials
    hours: Amount = 0.0
    trial_minutes: Amount = 0.0
    memory_gb: Amount = 0.0
    disk_gb: Amount = 0.0


class Data(Section):
    """The section `data`: see `parse_parts`."""

    preset: str = ""
    parts: dict[str, Any] = {}
    classes: Whole = 10
    # by default the official preset may leak, since the truth of the official test set is not public
    allow_leaks: bool | None = None


class Phases(Section):
    """The section `phases`; those that are None are left out."""

    babysit: Babysit | None = None
    coarse: Coarse | None = None
    fine: Fine | None = None
    confirm: Confirm | None = None
    full: Full | None = None


class Study(Section):
    """A study's YAML file: everything that decides what a study does."""

    config: Text
    given: Phases = Field(alias="phases")
    name: Name = "study"
    data: Data = Data()
    settings: Settings = {}
    # iterations; 0 for one pass through the training images
    epoch_iterations: Count = 0
    val_images: Count = 0
    seed: Count = 0
    objective: Objective = Objective()
    budget: Budget = Budget()
    storage: str = ""
    gpus_per_trial: Some = 1
    # the file as it was written
    _text: str = PrivateAttr("")

    @cached_property
    def phases(self) -> dict[str, Any]:
        """Name -> phase, of those that there are, in their order."""
        return {name: phase for name in PHASES if (phase := getattr(self.given, name)) is not None}

    @cached_property
    def parts(self) -> dict[str, Part]:
        return parse_parts(self.data.preset, self.data.parts)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return class_preset(self.data.classes)

    @cached_property
    def needs(self) -> set[str]:
        """The trials, as "phase/key", whose weights its settings name."""
        values = [value for _, settings in _layers(self) for value in settings.values()]
        return {value[1:] for value in values if isinstance(value, str) and value.startswith("@")}

    @property
    def allow_leaks(self) -> bool:
        leaks = self.data.allow_leaks
        return self.data.preset == "official" if leaks is None else leaks

    @property
    def text(self) -> str:
        return self._text


def load_study(path: Path, config: Path | None = None) -> Study:
    """Read and check a study's YAML file.

    Args:
        path: of the file.
        config: in place of the study's own config, which need not be there then.

    Raises:
        UserError: it is missing, not YAML, or a key or a value is not usable.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"The study {path} cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The study {path} is no text in UTF-8; save it in that encoding.") from error
    content = read_yaml(text, f"The study {path}")
    if not isinstance(content, dict):
        raise UserError(f"The study {path} is no mapping of keys; see configs/toy_study.yaml.")
    return parse_study({**content, "config": str(config)} if config else content, path.parent, text)


def parse_study(content: Mapping[str, Any], folder: Path, text: str) -> Study:
    """The study that `content` describes; paths in it are relative to `folder`.

    Raises:
        UserError: see `load_study`.
    """
    study = validated(Study, content)
    config = (folder / study.config).resolve()
    check_exists(config, "The study's config", "paths are relative to the study's file")
    study = study.model_copy(update={"config": str(config)})
    study._text = text
    if not study.phases:
        raise UserError(f"The study has no phases; give one or more of {', '.join(PHASES)}.")
    if "confirm" in study.phases and "fine" not in study.phases:
        raise UserError("phases.confirm trains the best of the fine search again; add phases.fine, or take it out.")
    # so that what is wrong with them is said now
    _ = study.parts, study.classes
    return study


def check_settings(study: Study, cfg: CfgNode) -> None:
    """Refuse settings and spaces of a study that are no keys of `cfg`, the config of its trials, or of other kinds.

    Raises:
        UserError: the sentence names the key, where it is, and the known one that comes nearest or what it may be.
    """
    known = {*_leaves(cfg, ""), *_SHORT}
    probe = cfg.clone()
    probe.defrost()
    for where, settings in _layers(study):
        for key, value in settings.items():
            if key not in known:
                raise unknown_key(where, str(key), sorted(known, key=len))
            for one in value.values() if isinstance(value, dict) else [value]:
                _check_value(probe, f"{where}.{key}", key, one)


def _check_value(probe: CfgNode, path: str, key: str, value: Any) -> None:
    if key in _SHORT:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or value < 0 or (key == LR and value == 0) or (key == MOMENTUM and value >= 1):
            raise UserError(f"{path} is {shortened(value)}; give a number, {_LIMITS[key]}.")
        return
    try:
        if value is None and look_up(probe, key) is not None:
            raise UserError("It has no value.")
        merge_options(probe, "", key_values({key: value}))
    except UserError as error:
        kind = shortened(look_up(probe, key))
        raise UserError(
            f"{path} is {shortened(value)}; give a value of the kind that the config has, {kind}."
        ) from error


def check_ranges(study: Study, cfg: CfgNode) -> None:
    """Refuse settings of a study whose values are out of range.

    Raises:
        UserError: the sentence says where the key is, and what it may be.
    """
    for where, settings in _layers(study):
        if where.endswith(".space"):
            continue
        probe = cfg.clone()
        probe.defrost()
        plain = {key: value for key, value in settings.items() if not isinstance(value, dict)}
        merge_options(probe, "", key_values({_SHORT.get(key, key): value for key, value in plain.items()}))
        try:
            check_values(probe)
            check_tuning(probe)
        except UserError as error:
            is_path = str(error).partition(" ")[0] in plain
            raise UserError(f"{where}{'.' if is_path else ': '}{error}") from error


def _leaves(node: CfgNode, prefix: str) -> Iterator[str]:
    for key, value in node.items():
        yield from _leaves(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else (f"{prefix}{key}",)


def _layers(study: Study) -> Iterator[tuple[str, Settings]]:
    """Where config keys are given, and the keys with their values."""
    yield "settings", study.settings
    for name, phase in study.phases.items():
        where = f"phases.{name}"
        yield f"{where}.settings", getattr(phase, "settings", {})
        for factor, levels in getattr(phase, "factors", {}).items():
            yield from ((f"{where}.factors.{factor}.{level}", levels[level]) for level in levels)
        for arm, content in getattr(phase, "arms", {}).items():
            yield f"{where}.arms.{arm}.settings", content.settings
            ends = {key: float(pair[0]) for key, pair in content.space.items() if pair != "auto"}
            yield f"{where}.arms.{arm}.space", {**{key: 1e-3 for key in content.space}, **ends}
        for variant, settings in getattr(phase, "variants", {}).items():
            own = {key: value for key, value in settings.items() if key != "from"}
            yield f"{where}.variants.{variant}", own
