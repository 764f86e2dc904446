"""The one exception type that a command line shows as a sentence instead of a traceback."""

import errno
import sys
from collections.abc import Callable

USER_ERROR_EXIT_CODE = 2


class UserError(Exception):
    """Something the user can mend: a path, a file, a config key.

    The message is one or two sentences: what is wrong, and what to do. The tools print it and end with exit code 2.
    """


def sentence_of(error: UserError) -> str:
    """The sentence of `error`, also when a data loader's worker process raised it.

    PyTorch hands a worker's exception on as the same type with the worker's whole traceback as its text; the sentence
    is what follows the last mention of the type's name.
    """
    return str(error).rsplit("UserError: ", 1)[-1].strip()


def run_command_line(main: Callable[[], int | None]) -> int:
    """Run a tool's `main` and return its exit code; a UserError or a full disk becomes a sentence, exit code 2."""
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {sentence_of(error)}", file=sys.stderr)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" for {error.filename}" if error.filename else ""
        print(f"error: The disk is full{where}; free some space and start again.", file=sys.stderr)
    return USER_ERROR_EXIT_CODE
