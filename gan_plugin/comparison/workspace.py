"""The folder of a comparison: one plan, written by one call at a time."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gan_plugin.errors import UserError
from gan_plugin.files import write_whole
from gan_plugin.processes import take

from .plan import Plan, extended

PLAN = "plan.json"
CONFIG = "config.yaml"
_LOCK = ".lock"
# collecting results and drawing a report takes that long at most
_PATIENCE_SECONDS = 120
_ADVICE = "Choose another --output, or free some disk space."


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within the block no other call writes the plan or the results in `folder`, which is made if need be.

    Raises:
        UserError: it is no writable folder, or another call does not end.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise UserError(
            f"The output {folder} is not writable ({error.strerror}); set --output to a folder you may write to."
        ) from error
    try:
        _wait_for(lock, folder)
        yield
    finally:
        os.close(lock)


def _wait_for(lock: int, folder: Path) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not take(lock):
        if time.monotonic() > end:
            raise UserError(f"Another call is at work in {folder}; wait for its end, or stop it.")
        time.sleep(0.2)


def known_plan(folder: Path, asked: Plan) -> Plan:
    """`asked` together with the plan that `folder` already has; nothing is written.

    Raises:
        UserError: the two differ in more than arms and seeds, or the folder holds something else.
    """
    file = folder / PLAN
    if file.is_file():
        try:
            former = Plan.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} cannot be read; choose another --output.") from error
        return extended(former, asked, str(folder))
    if folder.is_dir() and any(entry.name not in (_LOCK, f"{PLAN}.part") for entry in folder.iterdir()):
        raise UserError(f"{folder} holds files that are not of a comparison; choose another --output.")
    return asked


def save_plan(folder: Path, plan: Plan) -> None:
    """Write the plan and the config that its runs read; files that are right already are not touched."""
    write_if_new(folder / PLAN, json.dumps(plan.to_dict(), indent=1))
    write_if_new(folder / CONFIG, plan.config)


def write_if_new(file: Path, text: str) -> None:
    """Make `text` the content of `file`, which keeps its time of change if that is what it holds.

    Raises:
        UserError: it cannot be written.
    """
    content = text.encode()
    if not file.is_file() or file.read_bytes() != content:
        write_whole(file, lambda opened: opened.write(content), _ADVICE)
