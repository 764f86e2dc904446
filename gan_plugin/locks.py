"""Locks between processes that go away with the process that holds them, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def take(lock: int) -> bool:
    """Take the lock of the open file `lock` if nobody else holds it; whether it was free."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


@contextmanager
def taken(file: Path) -> Iterator[int | None]:
    """Within the block hold the lock of `file`, which is made if need be, unless somebody else does.

    Yields:
        Its file descriptor, or None if it was not free. A process that inherits the descriptor keeps the lock for as
        long as it lives.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield lock if take(lock) else None
    finally:
        os.close(lock)
