"""The folder that a long command fills: of one command with one set of options, continued by the same command."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gan_plugin.comparison.run import claimed, write_if_new
from gan_plugin.config_files import differences, told
from gan_plugin.errors import UserError

# a line for each finished piece of work
PROGRESS = "progress.jsonl"
_SETTINGS = "settings.json"


@contextmanager
def output_folder(folder: Path, settings: Mapping[str, Any], prepared: str = "") -> Iterator[Path]:
    """Within the block this call alone works in `folder`, which is new, or was begun with the same settings.

    Args:
        folder: made if need be.
        settings: whatever decides what will be in it, as JSON can hold it.
        prepared: name of a file that is made from the settings before the work begins; "" for none.

    Raises:
        UserError: it is not writable, holds work that was done with other settings, or holds something else.
    """
    text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
    if folder.is_dir():
        _check(folder, text)
    with claimed(folder):
        # what another call has begun while this one waited
        _check(folder, text)
        known = folder / _SETTINGS
        if prepared and known.is_file() and known.read_text(encoding="utf-8") != text:
            (folder / prepared).unlink(missing_ok=True)
        write_if_new(known, text)
        yield folder


def made_folder(folder: Path) -> Path:
    """`folder`, made if need be, for a short command that writes over what it has written before.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder} cannot be made ({error.strerror}); choose another.") from error
    return folder


def _check(folder: Path, text: str) -> None:
    if (folder / _SETTINGS).is_file():
        former, progress = (folder / _SETTINGS).read_text(encoding="utf-8"), folder / PROGRESS
        if former != text and progress.is_file() and progress.stat().st_size:
            was = _difference(former, text)
            raise UserError(f"{folder} was begun with {was}; repeat that, or choose another --output.")
    elif strangers := [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]:
        raise UserError(f"{folder} holds other files ({strangers[0]}); choose another --output.")


def _difference(former: str, text: str) -> str:
    try:
        return told(differences(json.loads(former), json.loads(text)))
    except (ValueError, AttributeError, TypeError):
        return "other settings"
