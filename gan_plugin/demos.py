"""What the demos share: a folder of their own, and steps that say how long they took."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gan_plugin.errors import UserError, as_user_error

# says that a folder is a demo's and may be deleted by the next one
MARKER = ".made_by_demo"


def clear_folder(folder: Path) -> None:
    """Leave `folder` empty but for the marker.

    Raises:
        UserError: it holds something that no demo made, or cannot be written.
    """
    with as_user_error(f"{folder} cannot be written", "choose another --out", OSError):
        if folder.is_dir() and any(folder.iterdir()):
            if not (folder / MARKER).is_file():
                raise UserError(f"{folder} holds files that are not of a demo; move them away or choose another --out.")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).touch()


@contextmanager
def announced(title: str) -> Iterator[None]:
    """Print a heading, and at the end the seconds that passed."""
    print(f"\n=== {title} ===", flush=True)
    start = time.monotonic()
    yield
    print(f"=== {title}: {time.monotonic() - start:.0f} s ===", flush=True)


def run_script(title: str, script: Path, arguments: list[object], environment: Mapping[str, str] | None = None) -> None:
    """Run a Python script, announced and with its output shown.

    Args:
        title: of the step.
        script: its file.
        arguments: of its command line.
        environment: variables beside those of this process.

    Raises:
        UserError: it failed; it has said why.
    """
    with announced(title):
        command = [sys.executable, str(script), *map(str, arguments)]
        code = subprocess.run(command, env={**os.environ, **(environment or {})}, check=False).returncode
        if code:
            raise UserError(f"The demo's step {title} failed (exit code {code}); the reason is above.")


def shown_path(file: Path) -> str:
    """`file` as a reader of the console finds it: relative if it is below the working directory."""
    return os.path.relpath(file) if file.resolve().is_relative_to(Path.cwd()) else str(file)
