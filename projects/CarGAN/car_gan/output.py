"""Where long work goes: a folder of one command with one set of options, and a journal that a kill does not undo."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from gan_plugin.comparison.run import claimed, write_if_new
from gan_plugin.config_files import differences, told
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import write_whole
from gan_plugin.processes import leave_ctrl_c_to_parent, raise_stopped, stop_signals_answered
from gan_plugin.rules import whole

# a line for each finished piece of work
PROGRESS = "progress.jsonl"
_SETTINGS = "settings.json"
Item = TypeVar("Item")
Result = dict[str, Any]


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
    with as_user_error(f"--output {folder} cannot be made", "choose another", OSError):
        folder.mkdir(parents=True, exist_ok=True)
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


def work_through(
    items: Sequence[Item], work: Callable[[Item], Result], journal: Path, *, workers: int, title: str
) -> Iterator[Result]:
    """Do `work` on every item that `journal` does not know yet, and yield the results of all, in the items' order.

    Each result is in the journal before the next one is asked for, so that a later call continues. The results do not
    depend on `workers`.

    Args:
        items: in a fixed order; what the journal holds is of the first of them.
        work: from an item to what JSON can hold; runs in the workers.
        journal: a file with a line for each finished item.
        workers: processes; 0 works in this one.
        title: for the progress bar.

    Raises:
        UserError: raised by `work`, or the journal cannot be written.
        Stopped: by SIGINT or SIGTERM.
    """
    whole(0).check("--workers", workers)
    former = _read(journal)[: len(items)]
    lines = "".join(json.dumps(line) + "\n" for line in former).encode()
    # a line that a kill has cut off must not stay at the end, where the next one would be written to it
    write_whole(journal, lines)
    yield from former
    bar = tqdm(total=len(items), initial=len(former), desc=title, unit="image", disable=None)
    with open(journal, "ab") as opened, bar, stop_signals_answered(raise_stopped):
        for result in _results(items[len(former) :], work, workers):
            _append(opened, journal, result)
            bar.update()
            yield result


def _read(journal: Path) -> list[Result]:
    if not journal.is_file():
        return []
    results = []
    for line in journal.read_bytes().split(b"\n"):
        try:
            results.append(json.loads(line))
        except ValueError:
            break
    return results


def _append(opened: IO[bytes], journal: Path, result: Result) -> None:
    with as_user_error(f"{journal} could not be written", "choose another --output", OSError):
        opened.write(json.dumps(result).encode() + b"\n")
        opened.flush()


def _results(items: Sequence[Item], work: Callable[[Item], Result], workers: int) -> Iterator[Result]:
    if not workers or not items:
        yield from map(work, items)
        return
    # a GPU cannot be used in a process that was forked off one which knows it
    context = "spawn" if torch.cuda.is_available() else "fork"
    loader = DataLoader(
        _Work(items, work),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=leave_ctrl_c_to_parent,
        multiprocessing_context=context,
    )
    yield from loader


class _Work(Dataset):
    def __init__(self, items: Sequence, work: Callable[[Any], Result]) -> None:
        self._items, self._work = items, work

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Result:
        return self._work(self._items[index])


def _as_it_is(result: Any) -> Any:
    return result
