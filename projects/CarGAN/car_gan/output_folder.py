"""The folder that a long command fills: of one command with one set of options, continued by the same command."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gan_plugin.comparison.workspace import claimed, write_if_new
from gan_plugin.errors import UserError

SETTINGS = "settings.json"


@contextmanager
def output_folder(folder: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    """Within the block this call alone works in `folder`, which is new, or was begun with the same settings.

    Args:
        folder: made if need be.
        settings: whatever decides what will be in it, as JSON can hold it.

    Raises:
        UserError: it is not writable, was begun with other settings, or holds something else.
    """
    text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
    if folder.is_dir():
        _check(folder, text)
    with claimed(folder):
        # what another call has begun while this one waited
        _check(folder, text)
        write_if_new(folder / SETTINGS, text)
        yield folder


def _check(folder: Path, text: str) -> None:
    if (folder / SETTINGS).is_file():
        former = (folder / SETTINGS).read_text(encoding="utf-8")
        if former != text:
            raise UserError(
                f"{folder} was begun with {_difference(former, text)}; repeat that, or choose another --output."
            )
    elif strangers := [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]:
        raise UserError(f"{folder} holds other files ({strangers[0]}); choose another --output.")


def _difference(former: str, text: str) -> str:
    try:
        before, now = json.loads(former), json.loads(text)
        key = next(key for key in {**before, **now} if before.get(key) != now.get(key))
        return f"{key} {before.get(key)!r} instead of {now.get(key)!r}"
    except (ValueError, AttributeError, StopIteration):
        return "other settings"
