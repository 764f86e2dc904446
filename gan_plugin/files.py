"""Files that are whole or absent, and texts whatever an editor has made of them."""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from gan_plugin.errors import UserError, history, worker_death

# of a file that is being written; one killed on the way leaves it behind
UNFINISHED = ".part"


def write_whole(path: str | os.PathLike, write: Callable[[IO[bytes]], Any], advice: str) -> None:
    """Let `write` fill a file that appears as `path` only once it is complete and on the disk.

    Args:
        path: what was there before stays if anything goes wrong.
        write: gets the open file.
        advice: a sentence on what the user can do if it cannot be written.

    Raises:
        UserError: it cannot be written.
    """
    temporary = f"{os.fspath(path)}{UNFINISHED}"
    try:
        with open(temporary, "wb") as file:
            write(file)
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


def first_line(error: BaseException) -> str:
    """The first line of an error's text without its full stop, or the error's type if it has no text."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
