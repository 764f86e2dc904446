"""The folder of a study: its description, its config, its data, and its trials; and what may change in it."""

import hashlib
import json
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from gan_plugin.comparison.run import key_values
from gan_plugin.config_files import Change, differences, flat, read_yaml, told
from gan_plugin.engine.setup import load_config
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.evaluation.build import metric_names
from gan_plugin.files import write_whole
from gan_plugin.processes import taken

from ..config import add_tuning_config
from ..data.parts import PARTS, SEED002, check_leaks, seed002_differences
from ..data.register import read_part, register_parts, write_part
from ..data.statistics import PartStatistics, part_statistics
from ..schema import unknown_key
from ..training.outcome import DIVERGED
from .context import CONFIG, DATA, PLANNING, Context, batch_of
from .storage import open_storage
from .study import Study, check_ranges, check_settings, load_study
from .table import Row, Table

STUDY, NOTES = "study.yaml", "notes.json"
_LOCK = ".setup"
_PATIENCE_SECONDS = 3600
# of a phase, what may change although trials of it are done: they stay right
_FREE = {
    "babysit": ("fall",),
    "coarse": ("lr", "procedure"),
    "fine": ("trials", "pruner", "method"),
    "confirm": ("top", "seeds"),
    "full": (),
}


def set_up(study_file: Path, folder: Path, storage: str | None = None) -> tuple[Context, Table]:
    """Begin a study in `folder`, or join the one that is there, changed as the file says.

    Phases, levels, arms and variants may come and go, search spaces and budgets may change: trials that are done stay,
    and new ones join them. What would make done trials wrong is refused.

    Args:
        study_file: the YAML.
        folder: made if need be.
        storage: in place of the study's own.

    Raises:
        UserError: the description or its data are not usable, or `folder` holds another study.
    """
    study = load_study(study_file)
    if storage is not None:
        study = study.model_copy(update={"storage": storage})
    folder = folder.resolve()
    with _alone(folder, _LOCK):
        cfg = _config(study)
        check_settings(study, cfg)
        check_ranges(study, cfg)
        if (folder / STUDY).is_file():
            _change(study, study_file, cfg, folder)
        elif any(entry.name not in (_LOCK, CONFIG, DATA) for entry in folder.iterdir()):
            raise UserError(f"{folder} holds files that are not of a study; choose another --output.")
        elif study.storage and _table(study, folder).phases():
            raise UserError(
                f"The storage {study.storage} holds a study called {study.name!r} already, which is not of {folder}; "
                "give this one another `name`, or delete that one."
            )
        else:
            _begin(study, cfg, folder)
    return open_study(folder)


def _begin(study: Study, cfg: CfgNode, folder: Path) -> None:
    _write(folder / CONFIG, cfg.dump())
    (folder / DATA / NOTES).unlink(missing_ok=True)
    _prepare_data(study, folder, cfg)
    _check_objective(_context(study, folder))
    _write(folder / STUDY, _with_absolute_config(study))


def _change(study: Study, study_file: Path, cfg: CfgNode, folder: Path) -> None:
    known = folder / CONFIG
    before = load_study(folder / STUDY, known if known.is_file() else None)
    rows = _table(before, folder).all_rows().values()
    # what has failed is made anew where its settings have changed
    begun = [row for row in rows if row.is_begun and (not row.is_failed or row.status == DIVERGED)]
    spoilt = _spoilt(before, study, begun)
    if known.is_file():
        spoilt += differences(_config_of(known.read_text(encoding="utf-8")), _config_of(cfg.dump()))
    if begun and spoilt:
        raise UserError(
            f"{folder} holds another study than {study_file} describes: {told(spoilt)} would make {len(begun)} trials "
            "wrong that are done; take that back, or choose another --output."
        )
    if spoilt or not known.is_file():
        _begin(study, cfg, folder)
    else:
        _write(folder / STUDY, _with_absolute_config(study))


def _spoilt(before: Study, now: Study, begun: list[Row]) -> list[Change]:
    """What has changed that trials depend on which have begun."""
    whole = [
        {
            **study.model_dump(include={"name", "storage", "epoch_iterations", "val_images", "seed", "settings"}),
            "objective.metric": study.objective.metric,
            "data.classes": study.classes,
            "data.parts": {name: part.model_dump() for name, part in study.parts.items()},
        }
        for study in (before, now)
    ]
    changes = differences(*map(flat, whole))
    phases = {row.phase.partition("-")[0] for row in begun}
    for name in (name for name in before.phases if name in phases and name in now.phases):
        was, is_ = (_fixed(name, study.phases[name].model_dump()) for study in (before, now))
        both = [key for key in was if key in is_]
        changes += differences({key: was[key] for key in both}, {key: is_[key] for key in both})
    return changes


def _fixed(phase: str, content: dict[str, Any]) -> dict[str, Any]:
    """Path -> value of all that trials of a phase depend on; of levels, arms and variants those with the same name."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if key == "factors":
            entries = {f"{key}.{factor}.{level}": levels[level] for factor, levels in value.items() for level in levels}
        elif key == "arms":
            entries = {f"{key}.{arm}.settings": entry["settings"] for arm, entry in value.items()}
        elif key == "variants":
            entries = {f"{key}.{variant}": entry for variant, entry in value.items()}
        else:
            entries = {} if key in _FREE[phase] else {key: value}
        found |= {f"phases.{phase}.{name}": entry for name, entry in entries.items()}
    return found


def _config_of(text: str) -> dict[str, Any]:
    return {
        key: value for key, value in flat(read_yaml(text, "The config of the study")).items() if key != "OUTPUT_DIR"
    }


def open_study(folder: Path) -> tuple[Context, Table]:
    """The study in a folder that `set_up` has made, with its parts registered as data sets.

    What has been deleted and follows from the rest, the config and the data's parts, is made anew.

    Raises:
        UserError: there is none.
    """
    folder = folder.resolve()
    if not (folder / STUDY).is_file():
        raise UserError(f"{folder} holds no study; begin one with `study.py run STUDY.yaml --output {folder}`.")
    config = folder / CONFIG
    study = load_study(folder / STUDY, config if config.is_file() else None)
    if not config.is_file():
        _write(config, _config(study).dump())
    try:
        context = _context(study, folder)
    except UserError:
        with _alone(folder, _LOCK):
            _prepare_data(study, folder, _config(study))
        context = _context(study, folder)
    return context, _table(study, folder)


def _context(study: Study, folder: Path) -> Context:
    contents = {part: read_part(folder / DATA / f"{part}.json") for part in PARTS}
    register_parts(folder / DATA)
    batch, optimizer = batch_of(study.settings, (folder / CONFIG).read_text(encoding="utf-8"))
    return Context(
        study,
        folder,
        {part: len(content["records"]) for part, content in contents.items()},
        tuple(contents["train"]["metadata"]["thing_classes"]),
        batch,
        optimizer,
    )


def _table(study: Study, folder: Path) -> Table:
    return Table(open_storage(study.storage, folder), study.name, "minimize" if study.objective.is_loss else "maximize")


def retry_failed(context: Context, table: Table) -> list[str]:
    """Let all failed trials be tried again but those that diverged, which they would again; returns their names."""
    with _alone(context.folder, PLANNING):
        rows = [row for row in table.all_rows().values() if row.is_failed and row.status != DIVERGED]
        for row in rows:
            table.again(row)
    return [row.name for row in rows]


def notes_of(folder: Path) -> list[str]:
    """Sentences about the study's data that a reader of its results should know."""
    return _notes(folder)["notes"]


def _notes(folder: Path) -> dict[str, Any]:
    file = folder / DATA / NOTES
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    # studies from before the parts had a digest have the sentences alone
    return content if isinstance(content, dict) else {"notes": content, "parts": {}}


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Within the block nobody else holds that lock of `folder`."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        writable = as_user_error(f"{folder} is not writable", "choose another --output", OSError)
        with writable, taken(folder / name) as lock:
            if lock is not None:
                yield
                return
        if time.monotonic() > end:
            raise UserError(f"Another process is setting up {folder}; wait for its end, or stop it.")
        time.sleep(0.5)


def _config(study: Study) -> CfgNode:
    return load_config(Namespace(config_file=study.config, opts=[]), add_tuning_config)


def _check_objective(context: Context) -> None:
    """Refuse an objective that no validation of this model gives, before anything is trained.

    Raises:
        UserError: the sentence has the names that there are.
    """
    objective = context.study.objective
    if objective.is_loss and objective.loss == "total":
        return
    settings = context.settings(train="small_train", val="small_val", iterations=1)
    settings = {key: value for key, value in settings.items() if not str(value).startswith("@")}
    opts = key_values({**settings, "TUNING.DATA": str(context.folder / DATA), "MODEL.DEVICE": "cpu"})
    cfg = load_config(Namespace(config_file=str(context.folder / CONFIG), opts=opts), add_tuning_config)
    known = _losses_of(cfg) if objective.is_loss else _scores_of(cfg)
    if known and objective.metric not in known:
        near = unknown_key("objective.metric", objective.metric, known)
        raise UserError(f"{str(near).replace('has a key', 'is').replace('the keys are', 'there are')}")


def _scores_of(cfg: CfgNode) -> list[str]:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST = cfg.TUNING.TEST
    return metric_names(cfg)


def _losses_of(cfg: CfgNode) -> list[str]:
    # here, since they are heavy
    import torch
    from detectron2.utils.events import EventStorage

    from ..data.mapper import validation_mapper
    from ..training.trainer import TuningTrainer
    from ..training.validation import detector_losses, validation_loader

    model = TuningTrainer.build_model(cfg).train()
    batch = next(iter(validation_loader(cfg.TUNING.VAL.DATASETS, 1, validation_mapper(cfg), 0)))
    with torch.no_grad(), EventStorage(0):
        return [f"val_loss/{name}" for name in ("total", *detector_losses(model, batch))]


def _prepare_data(study: Study, folder: Path, cfg: CfgNode) -> None:
    images: dict[str, dict[str, str]] = {}
    classes: dict[str, list[str]] = {}
    counted: dict[str, PartStatistics] = {}
    before, digests = _notes(folder)["parts"], {}
    for name, part in study.parts.items():
        file = folder / DATA / f"{name}.json"
        content = write_part(part, file, cfg, study.classes)
        digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        if before.get(name, digests[name]) != digests[name]:
            file.unlink()
            raise UserError(
                f"The images or the truth of the part {name} are other ones than when the study in {folder} began, so "
                "its trials would not compare; put them back, or choose another --output."
            )
        cities = {
            str(r["image_id"]): Path(r["file_name"]).parent.name if part.split else "" for r in content["records"]
        }
        images[name] = cities
        classes[name] = content["metadata"]["thing_classes"]
        counted[name] = part_statistics(content["records"], classes[name])
    if len({tuple(names) for names in classes.values()}) > 1:
        raise UserError("The parts of the data have different classes; give parts of one data set.")
    notes = check_leaks(images, study.allow_leaks)
    if study.parts == SEED002:
        notes += seed002_differences(
            {name: s.images for name, s in counted.items()},
            {name: s.most for name, s in counted.items()},
            {name: s.empty for name, s in counted.items()},
        )
    _write(folder / DATA / NOTES, json.dumps({"notes": notes, "parts": digests}))


def _with_absolute_config(study: Study) -> str:
    content: dict[str, Any] = read_yaml(study.text, "The study")
    content |= {"config": study.config, "storage": study.storage}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, text)
