"""Files that are whole or absent, texts whatever an editor has made of them, and what torch has saved, as data."""

import io
import os
import pickle
import pickletools
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

from gan_plugin.errors import UserError, first_line, history, worker_death

# of a file that is being written; one killed on the way leaves it behind
UNFINISHED = ".part"
_ANOTHER = "name another file, such as a model_*.pth of a run"
# what torch.load raises for a file that is none of its own, or is cut short
UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
)
# what torch.load says of a pickle that it understands and does not restore
_REFUSED = re.compile(r"(?:GLOBAL|Unsupported class) ([\w.]+)|TorchScript")


def write_whole(
    path: str | os.PathLike,
    content: str | bytes | Callable[[IO[bytes]], Any],
    advice: str = "Free some disk space, or choose another place.",
) -> None:
    """Write a file that appears as `path` only once it is complete and on the disk.

    Args:
        path: what was there before stays if anything goes wrong.
        content: of the file, or what writes it into the open file.
        advice: a sentence on what the user can do if it cannot be written.

    Raises:
        UserError: it cannot be written.
    """
    temporary = f"{os.fspath(path)}{UNFINISHED}"
    try:
        with open(temporary, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.remove(temporary)
        if not isinstance(error, OSError | RuntimeError) or worker_death(error):
            raise
        # torch.save's own words for a write that failed say nothing to a user
        reason = next((former for former in history(error) if isinstance(former, OSError)), error)
        raise UserError(f"{path} could not be written ({first_line(reason)}). {advice}") from error


def check_exists(path: str | os.PathLike, what: str, advice: str, *, folder: bool = False) -> None:
    """Raise a UserError, "<what> <path> does not exist; <advice>.", unless there is such a file or folder."""
    if not (os.path.isdir(path) if folder else os.path.isfile(path)):
        raise UserError(f"{what} {path} does not exist; {advice}.".lstrip())


def read_text(path: str | os.PathLike) -> str:
    """The text of a file in UTF-8 or UTF-16, without the byte order mark that an editor or a spreadsheet has added.

    Raises:
        UserError: it cannot be read, or is in another encoding.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8; save it in that encoding.") from error


class UnsafeCheckpointError(UserError):
    """A file that is whole, but whose objects only running code could restore."""


def read_safely(path: str | os.PathLike, content: bytes | None = None, *, advice: str = _ANOTHER) -> Any:
    """What torch has saved as `path`, on the CPU, without running any code in it.

    Args:
        path: of the file.
        content: of the file, where it is at hand.
        advice: what to do if it is no checkpoint.

    Raises:
        UnsafeCheckpointError: it holds objects.
        UserError: it cannot be read, or is no such file.
    """
    try:
        return torch.load(path if content is None else io.BytesIO(content), map_location="cpu", weights_only=True)
    except (OSError, *UNREADABLE) as error:
        if name := _object_in(path, content, error):
            raise UnsafeCheckpointError(
                f"{path} holds objects besides weights ({name}), which only running code in the file could restore, so "
                "it is not read; if you trust its origin, write its weights anew with tools/export_generator.py FILE "
                "OUT.pth --allow-pickle."
            ) from error
        if isinstance(error, OSError) and not os.access(path, os.R_OK):
            raise UserError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from error
        raise UserError(
            f"{path} is not a checkpoint, or was cut short while it was written ({first_line(error)[:100]}); {advice}."
        ) from error


def _object_in(path: str | os.PathLike, content: bytes | None, error: Exception) -> str:
    """What kind of object a whole file holds that torch.load has refused; "" for a file that is not whole."""
    if refused := _REFUSED.search(str(error)):
        return refused[1] or "a TorchScript program"
    strings: list[str] = []
    found = ""
    try:
        # a plain pickle; a file of torch in which there is an object has been found above
        for code, value, _ in pickletools.genops(Path(path).read_bytes() if content is None else content):
            strings += [str(value)] if "UNICODE" in code.name else []
            if "GLOBAL" in code.name:
                found = found or (str(value).replace(" ", ".") if value else ".".join(strings[-2:]))
    except (OSError, ValueError, IndexError, KeyError):
        return ""
    return found
