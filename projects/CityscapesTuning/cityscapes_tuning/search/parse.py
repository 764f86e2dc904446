"""From a YAML file to a checked study."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from gan_plugin.config_files import read_yaml
from gan_plugin.errors import UserError

from ..data.classes import class_preset
from ..data.parts import parse_parts
from . import PHASES
from .study import (
    LR,
    METHODS,
    PRUNERS,
    SAMPLERS,
    Babysit,
    Budget,
    Coarse,
    Confirm,
    Fine,
    Full,
    Objective,
    Settings,
    Study,
)

_T = TypeVar("_T")
_PHASE_TYPES = {"babysit": Babysit, "coarse": Coarse, "fine": Fine, "confirm": Confirm, "full": Full}
_KEYS = {
    "name", "config", "data", "settings", "epoch_iterations", "val_images", "seed", "objective", "budget", "storage",
    "gpus_per_trial", "phases",
}  # fmt: skip


def load_study(path: Path) -> Study:
    """Read and check a study's YAML file.

    Raises:
        UserError: it is missing, not YAML, or a key or a value is not usable.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"The study {path} cannot be read ({error.strerror}); check the path.") from error
    content = read_yaml(text, f"The study {path}")
    if not isinstance(content, dict):
        raise UserError(f"The study {path} is no mapping of keys; see configs/toy_study.yaml.")
    return parse_study(content, path.parent, text)


def parse_study(content: Mapping[str, Any], folder: Path, text: str) -> Study:
    """The study that `content` describes; paths in it are relative to `folder`.

    Raises:
        UserError: see `load_study`.
    """
    if unknown := sorted(set(content) - _KEYS):
        raise UserError(
            f"The study has a key {unknown[0]!r}, which is unknown; the keys are {', '.join(sorted(_KEYS))}."
        )
    data = content.get("data") or {}
    if unknown := sorted(set(data) - {"preset", "parts", "classes", "allow_leaks"}):
        raise UserError(f"data has a key {unknown[0]!r}; the keys are preset, parts, classes, allow_leaks.")
    if not content.get("config"):
        raise UserError("The study lacks `config`, the Detectron2 YAML file that its trials start from.")
    config = (folder / content["config"]).resolve()
    if not config.is_file():
        raise UserError(f"The study's config {config} does not exist; paths are relative to the study's file.")
    phases = content.get("phases") or {}
    if unknown := sorted(set(phases) - set(PHASES)):
        raise UserError(f"phases has {unknown[0]!r}; the phases are {', '.join(PHASES)}.")
    if not phases:
        raise UserError(f"The study has no phases; give one or more of {', '.join(PHASES)}.")
    study = Study(
        name=str(content.get("name", "study")),
        config=str(config),
        parts=parse_parts(data),
        classes=class_preset(data.get("classes", 10)),
        allow_leaks=bool(data.get("allow_leaks", data.get("preset") == "official")),
        settings=dict(content.get("settings") or {}),
        epoch_iterations=int(content.get("epoch_iterations", 0)),
        val_images=int(content.get("val_images", 0)),
        seed=int(content.get("seed", 0)),
        objective=_build(Objective, content.get("objective"), "objective"),
        budget=_build(Budget, content.get("budget"), "budget"),
        storage=str(content.get("storage") or ""),
        gpus_per_trial=int(content.get("gpus_per_trial", 1)),
        phases={name: _build(_PHASE_TYPES[name], phases[name], f"phases.{name}") for name in PHASES if name in phases},
        text=text,
    )
    _check(study)
    return study


def _build(kind: type[_T], content: Any, where: str) -> _T:
    names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{where} is {content!r}; give a mapping with some of {', '.join(names)}.")
    if unknown := sorted(set(content) - set(names)):
        raise UserError(f"{where} has a key {unknown[0]!r}; the keys are {', '.join(names)}.")
    return kind(**{key: value for key, value in content.items() if value is not None})


def _check(study: Study) -> None:
    for name, phase in study.phases.items():
        if getattr(phase, "epochs", 1) <= 0:
            raise UserError(f"phases.{name}.epochs is {phase.epochs}; give a number above 0.")
    _one_of("objective.direction", study.objective.direction, ("minimize", "maximize"))
    coarse, fine, full = (study.phases.get(name) for name in ("coarse", "fine", "full"))
    if coarse is not None:
        _one_of("phases.coarse.procedure", coarse.procedure, ("coordinate", "factorial"))
        if not coarse.lr or not all(isinstance(lr, int | float) and lr > 0 for lr in coarse.lr):
            raise UserError(f"phases.coarse.lr is {coarse.lr!r}; give numbers above 0, and write 1e-3 as 1.0e-3.")
        for factor, levels in coarse.factors.items():
            if not isinstance(levels, dict) or not levels:
                raise UserError(f"phases.coarse.factors.{factor} has no level; give a name with settings for each.")
    if fine is not None:
        _check_fine(fine)
    if full is not None:
        _one_of("phases.full.best_from", full.best_from, ("search", "none"))
        _check_variants(full.variants)
    if "confirm" in study.phases and fine is None:
        raise UserError("phases.confirm trains the best of the fine search again; add phases.fine, or take it out.")


def _check_fine(fine: Fine) -> None:
    _one_of("phases.fine.method", fine.method, METHODS)
    _one_of("phases.fine.sampler", fine.sampler, SAMPLERS)
    _one_of("phases.fine.pruner", fine.pruner, PRUNERS)
    if not fine.arms:
        raise UserError("phases.fine.arms is empty; give each optimizer to search with its settings and its space.")
    for arm, content in fine.arms.items():
        for name, interval in (content.get("space") or {}).items():
            if interval == "auto" and name == LR:
                continue
            bad = not isinstance(interval, list | tuple) or len(interval) != 2
            if bad or not all(isinstance(x, int | float) for x in interval) or not 0 < interval[0] < interval[1]:
                raise UserError(
                    f"phases.fine.arms.{arm}.space.{name} is {interval!r}; give [low, high] with 0 < low < high, and "
                    "write 1e-4 as 1.0e-4, or YAML reads it as text."
                )


def _check_variants(variants: Mapping[str, Settings]) -> None:
    if not variants:
        raise UserError("phases.full.variants is empty; give at least one, such as V1: {}.")
    for name in variants:
        seen = [name]
        while parent := (variants[seen[-1]] or {}).get("from"):
            if parent not in variants or parent in seen:
                raise UserError(f"The variant {seen[-1]} continues from {parent!r}, which is no variant before it.")
            seen.append(parent)


def _one_of(key: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"{key} is {value!r}; set it to one of {', '.join(known)}.")
