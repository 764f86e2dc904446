"""The folder of a study: its description, its config, its data, and its trials."""

import json
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from gan_plugin.config_files import differences, flat, read_yaml, told
from gan_plugin.engine.setup import load_config
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole
from gan_plugin.locks import taken

from ..config import add_tuning_config
from ..data.parts import PARTS, SEED002, check_leaks, seed002_differences
from ..data.register import read_part, register_parts, write_part
from ..data.statistics import PartStatistics, part_statistics
from .context import CONFIG, DATA, Context
from .parse import check_settings, load_study
from .shrink import batch_of
from .study import Study
from .table import Table, open_storage

STUDY, NOTES = "study.yaml", "notes.json"
_PATIENCE_SECONDS = 3600
_ADVICE = "Choose another --output, or free some disk space."


def set_up(study_file: Path, folder: Path) -> tuple[Context, Table]:
    """Begin a study in `folder`, or join the same study that is there already.

    Args:
        study_file: the YAML.
        folder: made if need be.

    Raises:
        UserError: the description or its data are not usable, or `folder` holds another study.
    """
    study = load_study(study_file)
    folder = folder.resolve()
    with _alone(folder):
        known = folder / STUDY
        text = _with_absolute_config(study)
        if not known.is_file():
            if any(entry.name != _LOCK for entry in folder.iterdir()):
                raise UserError(f"{folder} holds files that are not of a study; choose another --output.")
            cfg = _config(study)
            check_settings(study, cfg)
            _write(folder / CONFIG, cfg.dump())
            _prepare_data(study, folder, cfg)
            _write(known, text)
        elif changes := differences(_lasting(known.read_text(encoding="utf-8"), known), _lasting(text, study_file)):
            raise UserError(
                f"{folder} holds another study than {study_file} describes: it was begun with {told(changes)}; "
                "repeat it as it was, or choose another --output."
            )
        else:
            # more time or memory is no other study
            _write(known, text)
    return open_study(folder)


def open_study(folder: Path) -> tuple[Context, Table]:
    """The study in a folder that `set_up` has made, with its parts registered as data sets.

    Raises:
        UserError: there is none.
    """
    folder = folder.resolve()
    if not (folder / STUDY).is_file():
        raise UserError(f"{folder} holds no study; begin one with `study.py run STUDY.yaml --output {folder}`.")
    study = load_study(folder / STUDY)
    register_parts(folder / DATA)
    contents = {part: read_part(folder / DATA / f"{part}.json") for part in PARTS}
    batch, optimizer = batch_of(study.settings, (folder / CONFIG).read_text(encoding="utf-8"))
    context = Context(
        study,
        folder,
        {part: len(content["records"]) for part, content in contents.items()},
        tuple(contents["train"]["metadata"]["thing_classes"]),
        batch,
        optimizer,
    )
    return context, Table(open_storage(study.storage, folder), study.name, study.objective.direction)


def notes_of(folder: Path) -> list[str]:
    """Sentences about the study's data that a reader of its results should know."""
    file = folder / DATA / NOTES
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


_LOCK = ".setup"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within the block nobody else sets up a study in `folder`."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            with taken(folder / _LOCK) as lock:
                if lock is not None:
                    yield
                    return
        except OSError as error:
            raise UserError(f"{folder} is not writable ({error.strerror}); choose another --output.") from error
        if time.monotonic() > end:
            raise UserError(f"Another process is setting up {folder}; wait for its end, or stop it.")
        time.sleep(0.5)


def _config(study: Study) -> CfgNode:
    return load_config(Namespace(config_file=study.config, opts=[]), add_tuning_config)


def _prepare_data(study: Study, folder: Path, cfg: CfgNode) -> None:
    images: dict[str, dict[str, str]] = {}
    classes: dict[str, list[str]] = {}
    counted: dict[str, PartStatistics] = {}
    for name, part in study.parts.items():
        content = write_part(part, folder / DATA / f"{name}.json", cfg, study.classes)
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
    _write(folder / DATA / NOTES, json.dumps(notes))


def _with_absolute_config(study: Study) -> str:
    content: dict[str, Any] = read_yaml(study.text, "The study")
    content["config"] = study.config
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _lasting(text: str, file: Path) -> dict[str, Any]:
    content = read_yaml(text, f"The study {file}")
    return {key: value for key, value in flat(content).items() if key.split(".")[0] != "budget"}


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, lambda opened: opened.write(text.encode()), _ADVICE)
