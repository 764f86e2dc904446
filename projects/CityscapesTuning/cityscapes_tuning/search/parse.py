"""From a YAML file to a checked study."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from gan_plugin.config_files import read_yaml
from gan_plugin.errors import UserError

from ..checked import checked, unknown_key
from ..data.classes import class_preset
from ..data.parts import parse_parts
from . import PHASES
from .study import LR, MOMENTUM, WEIGHT_DECAY, Content, Fine, Objective, Settings, Study


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
    read = checked(Content, content, "")
    config = (folder / read.config).resolve()
    if not config.is_file():
        raise UserError(f"The study's config {config} does not exist; paths are relative to the study's file.")
    phases = {name: phase for name in PHASES if (phase := getattr(read.phases, name)) is not None}
    if not phases:
        raise UserError(f"The study has no phases; give one or more of {', '.join(PHASES)}.")
    allow_leaks = read.data.allow_leaks
    study = Study(
        name=read.name,
        config=str(config),
        parts=parse_parts(read.data.preset, read.data.parts),
        classes=class_preset(read.data.classes),
        allow_leaks=read.data.preset == "official" if allow_leaks is None else allow_leaks,
        settings=read.settings,
        epoch_iterations=read.epoch_iterations,
        val_images=read.val_images,
        seed=read.seed,
        objective=read.objective,
        budget=read.budget,
        storage=read.storage,
        gpus_per_trial=read.gpus_per_trial,
        phases=phases,
        text=text,
    )
    _check(study)
    return study


def check_settings(study: Study, cfg: CfgNode) -> None:
    """Refuse settings and spaces of a study that are no keys of `cfg`, the config of its trials.

    Raises:
        UserError: the sentence names the key, where it is, and the known one that comes nearest.
    """
    known = {*_leaves(cfg, ""), LR, MOMENTUM, WEIGHT_DECAY}
    for where, key in _settings_of(study):
        if key not in known:
            raise unknown_key(where, key, sorted(known, key=len))


def _leaves(node: CfgNode, prefix: str) -> Iterator[str]:
    for key, value in node.items():
        yield from _leaves(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else (f"{prefix}{key}",)


def _settings_of(study: Study) -> Iterator[tuple[str, str]]:
    """Where a config key is given, and the key."""
    yield from (("settings", key) for key in study.settings)
    for name, phase in study.phases.items():
        where = f"phases.{name}"
        yield from ((f"{where}.settings", key) for key in getattr(phase, "settings", ()))
        for factor, levels in getattr(phase, "factors", {}).items():
            yield from ((f"{where}.factors.{factor}.{level}", key) for level in levels for key in levels[level] or ())
        for arm, content in getattr(phase, "arms", {}).items():
            yield from ((f"{where}.arms.{arm}.settings", key) for key in content.settings)
            yield from ((f"{where}.arms.{arm}.space", key) for key in content.space)
        for variant, settings in getattr(phase, "variants", {}).items():
            yield from ((f"{where}.variants.{variant}", key) for key in settings if key != "from")


def _check(study: Study) -> None:
    _check_objective(study.objective)
    babysit, coarse, fine, full = (study.phases.get(name) for name in ("babysit", "coarse", "fine", "full"))
    if babysit is not None and (len(babysit.lr_range) != 2 or babysit.lr_range[0] >= babysit.lr_range[1]):
        raise UserError(f"phases.babysit.lr_range is {list(babysit.lr_range)}; give [low, high] with 0 < low < high.")
    if coarse is not None:
        if not coarse.lr:
            raise UserError("phases.coarse.lr is empty; give at least one learning rate.")
        for factor, levels in coarse.factors.items():
            if not levels:
                raise UserError(f"phases.coarse.factors.{factor} has no level; give a name with settings for each.")
    if fine is not None:
        _check_fine(fine)
    if full is not None:
        _check_variants(full.variants)
    if "confirm" in study.phases:
        if fine is None:
            raise UserError("phases.confirm trains the best of the fine search again; add phases.fine, or take it out.")
        if not study.phases["confirm"].seeds:
            raise UserError("phases.confirm.seeds is empty; give at least one.")


def _check_objective(objective: Objective) -> None:
    if "/" not in objective.metric:
        raise UserError(f"objective.metric is {objective.metric!r}; set it to val_loss/total or to a score as segm/AP.")
    right = "minimize" if objective.is_loss else "maximize"
    if objective.direction != right:
        better = "lower" if objective.is_loss else "higher"
        raise UserError(
            f"objective.direction is {objective.direction!r}, but the {better} {objective.metric}, the better; set it "
            f"to {right}."
        )


def _check_fine(fine: Fine) -> None:
    if not fine.arms:
        raise UserError("phases.fine.arms is empty; give each optimizer to search with its settings and its space.")
    for arm, content in fine.arms.items():
        for name, interval in content.space.items():
            if interval == "auto" and name == LR:
                continue
            bad = not isinstance(interval, list | tuple) or len(interval) != 2
            if bad or not all(type(x) in (int, float) for x in interval) or not 0 < interval[0] < interval[1]:
                raise UserError(
                    f"phases.fine.arms.{arm}.space.{name} is {interval!r}; give [low, high] with 0 < low < high, and "
                    "write 1e-4 as 1.0e-4, or YAML reads it as text."
                )
        for name in content.linear:
            if name not in content.space:
                raise unknown_key(f"phases.fine.arms.{arm}.linear", name, content.space)


def _check_variants(variants: Mapping[str, Settings]) -> None:
    if not variants:
        raise UserError("phases.full.variants is empty; give at least one, such as V1: {}.")
    for name in variants:
        seen = [name]
        while parent := variants[seen[-1]].get("from"):
            # it may be anything that YAML writes, also what is no key
            if parent not in list(variants) or parent in seen:
                raise UserError(f"The variant {seen[-1]} continues from {parent!r}, which is no variant before it.")
            seen.append(parent)
