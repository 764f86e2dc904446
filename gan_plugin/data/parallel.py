"""A function over many items in several processes, in order, with no more in flight than needed."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import cv2

from gan_plugin.errors import UserError
from gan_plugin.processes import leave_ctrl_c_to_parent

Item = TypeVar("Item")
Result = TypeVar("Result")
_QUEUE = 10


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item], workers: int = -1) -> Iterator[Result]:
    """function(item) for each item, in their order; whatever a call raises is raised here.

    Args:
        function: can be pickled, as can its items and results.
        items: read as they are needed.
        workers: processes; -1 for one a core, 0 and 1 for none but this one.

    Raises:
        UserError: a process has died.
    """
    count = (os.cpu_count() or 1) if workers < 0 else workers
    if count <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Any]] = deque()
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= _QUEUE * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError("A process died, perhaps for lack of memory; use fewer with --workers.") from error
        finally:
            for future in waiting:
                future.cancel()


def _begin() -> None:
    leave_ctrl_c_to_parent()
    cv2.setNumThreads(0)
