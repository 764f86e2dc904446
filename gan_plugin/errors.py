"""The errors that a command line shows as a sentence instead of a traceback."""

import errno
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from .processes import Stopped

USER_ERROR_EXIT_CODE = 2
_FULL = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EFBIG: "A file has reached the size limit (ulimit -f)",
}
_TRACEBACK = "Traceback (most recent call last):"
# what Python writes between two exceptions, and before the sentence of one of ours
_CAUSE = "The above exception was the direct cause of"
_LINK = re.compile(rf"^({_CAUSE}|During handling of) .*exception.*:$", re.MULTILINE)
_RAISED = re.compile(r"^(?:\w+\.)*UserError: ", re.MULTILINE)
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid.*?(signal: [\w ]+|unexpectedly( with exit code -?\d+)?)")


class UserError(Exception):
    """Something the user can correct: a path, a file, a config key.

    The message is one or two sentences: what is wrong, and what to do. The tools print it and end with exit code 2.
    """


@contextmanager
def as_user_error(what: str, advice: str, *kinds: type[Exception]) -> Iterator[None]:
    """Within the block an exception is a user's mistake: "<what> (<the exception's reason>); <advice>."

    Args:
        what, advice: what is wrong, and what to do.
        kinds: of exceptions; () for those of a file that is missing, or is no JSON with the keys that are looked up.
    """
    mistakes = kinds or (OSError, ValueError, KeyError, TypeError, AttributeError)
    try:
        yield
    except mistakes as error:
        raise UserError(f"{what} ({reason_of(error)}); {advice}.") from error


def reason_of(error: BaseException) -> str:
    """What an exception says, in a few words and without a full stop."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = first_line(error)
    speaks = isinstance(error, OSError | ValueError | RuntimeError | UserError) or line == type(error).__name__
    return line if speaks else f"{type(error).__name__}: {line}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text without its full stop, or the error's type if it has no text."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def sentence_of(error: BaseException) -> str:
    """What `error` says, with the context of its UserErrors also where another process has raised them.

    A library that hands on the exception of a data loader's worker, or of a process of a pool, makes its whole
    traceback the text of a new exception.
    """
    return _told([error]) or str(error).strip()


def explanation(error: BaseException | None) -> str | None:
    """What to tell the user about `error`: a UserError, a full disk or a dead data loading worker; None for all else.

    A UserError raised `from` another adds where that one has happened, such as a file or a key: both are told, in one
    sentence. An error that a first one has merely led to, of whatever type, is explained by the first: Detectron2's
    hooks and writers do their last work after a failure too, and may stumble over what it has left half done.
    """
    errors = list(history(error))[::-1]
    if told := _told(errors):
        return told
    for former in errors:
        if isinstance(former, OSError) and former.errno in _FULL:
            where = f" for {former.filename}" if former.filename else ""
            return f"{_FULL[former.errno]}{where}; free some space and start again."
    for former in errors:
        if death := worker_death(former):
            return (
                f"A data loading worker died ({death}); most often memory or /dev/shm has run out. Lower "
                "DATALOADER.NUM_WORKERS, or set it to 0, and start again: --resume continues from the last checkpoint."
            )
    return None


def history(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and those before it, the ones that a traceback would show."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _told(errors: Iterable[BaseException]) -> str | None:
    """One sentence from the first of `errors` (the earliest first) that is a UserError and those raised from it."""
    own: str | None = None
    told: str | None = None
    for error in errors:
        for sentence, is_caused in _sentences(error):
            if told is not None and not is_caused:
                return told
            if sentence is not None:
                own, told = sentence, sentence if told is None or own is None else _joined(sentence, own, told)
    return told


def _sentences(error: BaseException) -> Iterator[tuple[str | None, bool]]:
    """Of each exception that `error` stands for: the sentence of a UserError, and whether it was raised from another.

    That is `error` itself, or those of the traceback that its text is, the earliest first.
    """
    is_caused, text = error.__cause__ is not None, str(error)
    if _TRACEBACK not in text:
        yield text.strip() if isinstance(error, UserError) else None, is_caused
        return
    parts = _LINK.split(text)
    for part, link in zip(parts[::2], [None, *parts[1::2]], strict=True):
        found = _RAISED.split(part)
        yield found[-1].strip(' \n"') if len(found) > 1 else None, is_caused if link is None else link == _CAUSE


def _joined(outer: str, inner: str, told: str) -> str:
    """`outer`, with all that is `told` of the error `inner` from which it was raised, but nothing twice."""
    inner, told = inner.rstrip("."), told.rstrip(".")
    if told in outer:
        return outer
    if inner in outer:
        return outer.replace(inner, told, 1)
    return f"{told}." if outer.rstrip(".") in told else f"{outer.rstrip('.:')}: {told}."


def worker_death(error: BaseException) -> str | None:
    """How a worker process of PyTorch's DataLoader died, if that is what `error` says.

    The DataLoader raises it from a signal handler, that is in the midst of whatever this process is doing.
    """
    found = _DEAD_WORKER.search(str(error)) if isinstance(error, RuntimeError) else None
    return found and found[0].strip()


def run_command_line(main: Callable[[], int | None]) -> int:
    """Run a tool's `main` and return its exit code; what has an `explanation` becomes that sentence, exit code 2.

    Raises:
        KeyboardInterrupt: Ctrl-C, also where it has led to another error.
    """
    try:
        with _no_needless_tracebacks():
            return main() or 0
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except Exception as error:
        if any(isinstance(former, KeyboardInterrupt) for former in history(error)):
            raise KeyboardInterrupt from error
        sentence = explanation(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
    return USER_ERROR_EXIT_CODE


@contextmanager
def explanations_logged() -> Iterator[None]:
    """Within the block an error that has an `explanation` leaves it in the plugin's log before it goes on."""
    try:
        yield
    except Exception as error:
        if sentence := explanation(error):
            logging.getLogger("gan_plugin").error(sentence)
        raise


@contextmanager
def _no_needless_tracebacks() -> Iterator[None]:
    # A log file that takes no more would bring a traceback for each line, which the console has anyway.
    strict, logging.raiseExceptions = logging.raiseExceptions, False
    # TensorBoard writes in a thread, which hands its error on to the main one but dies of it as well.
    before = threading.excepthook

    def show(arguments: threading.ExceptHookArgs) -> None:
        if explanation(arguments.exc_value) is None:
            before(arguments)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = before
        logging.raiseExceptions = strict
