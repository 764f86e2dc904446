"""One run as a process of tools/train_net.py."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .plan import WEIGHTS, Run
from .workspace import CONFIG

_CONSOLE = "console.txt"
_PR_SET_PDEATHSIG = 1


def arguments_of(run: Run, output: Path) -> list[str]:
    """The command line of tools/train_net.py that does what is left of `run`, which is not finished."""
    folder = output / run.name
    settings: dict[str, Any] = {**run.settings, "OUTPUT_DIR": str(folder)}
    # continues the training, or makes up for a final evaluation that was lost
    flags = ["--resume"] if folder.exists() else []
    if run.parent:
        settings["MODEL.WEIGHTS"] = str(output / run.parent / WEIGHTS)
    return ["--config-file", str(output / CONFIG), *flags, *key_values(settings)]


def key_values(settings: Mapping[str, Any]) -> list[str]:
    """KEY VALUE pairs; quoted, so that a folder named 123 stays a string."""
    return [part for key, value in settings.items() for part in (key, repr(value))]


class TrainNet:
    """A process of tools/train_net.py, whose output goes to console.txt in its folder.

    It has a session of its own, so that a terminal's Ctrl-C reaches it once, through us; and on Linux it is stopped
    when this process is killed.
    """

    def __init__(
        self,
        tool: Path,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        keep_open: Sequence[int],
    ) -> None:
        """
        Args:
            tool: path of train_net.py.
            arguments: its command line.
            folder: of the run; made if need be.
            environment: variables besides those of this process.
            keep_open: file descriptors that it inherits.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._console = folder / _CONSOLE
        with open(self._console, "wb") as console:
            self._process = subprocess.Popen(
                [sys.executable, str(tool), *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(keep_open),
                start_new_session=True,
                preexec_fn=_end_with_the_parent(),
            )

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return self._process.wait()

    def stop(self) -> None:
        """Ask it to save a checkpoint and end."""
        if self.poll() is None:
            self._process.terminate()

    def complaint(self) -> str:
        """The sentence that it ended with."""
        text = self._console.read_text(encoding="utf-8", errors="replace") if self._console.is_file() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        sentences = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if sentences:
            return sentences[-1]
        code = self.wait()
        end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"It {end}; its last line is: {lines[-1] if lines else 'none'} (see {self._console})."


def _end_with_the_parent() -> Any:
    # prctl(2); looked up before the fork, after which only the call itself is safe
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
