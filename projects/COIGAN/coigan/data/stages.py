"""Steps of preparation whose results are kept: done again only if asked for, changed or damaged."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gan_plugin.errors import UserError

from .line_sets import write_json
from .line_store import INDEX, LineStore

_logger = logging.getLogger(__name__)
_FOLDER = "stages"


class Stages:
    """Runs stages in order below a folder.

    A stage builds its outputs beside their places; they are moved there once all are whole, and its manifest
    stages/<name>.json, with the number and bytes of their files, comes last. So a stage that was interrupted has no
    manifest and is built again, and one whose files have been lost or changed in size, or whose line stores no longer
    fit their checksums, is as well, together with all that follow.

    Args:
        root: the folder of the whole data set.
        force: names of stages to build again in any case.

    Attributes:
        done: name -> "kept" or the reason why it was built.
    """

    def __init__(self, root: Path, force: Iterable[str] = ()) -> None:
        self.root = root
        self.done: dict[str, str] = {}
        self._force = set(force)
        self._before = ""

    def run(
        self, name: str, outputs: Sequence[str], parameters: dict[str, Any], build: Callable[[Path], object]
    ) -> None:
        """Do the stage `name` unless it is there.

        Args:
            name: of the manifest.
            outputs: names of files and folders that it makes below the root.
            parameters: what its result depends on beside the stages before it.
            build: makes the outputs in the folder that it is given.

        Raises:
            UserError: `build` has not made what it should.
        """
        wanted = {"parameters": parameters, "after": self._before}
        manifest = self.root / _FOLDER / f"{name}.json"
        reason = self._reason(name, manifest, wanted)
        self.done[name] = reason or "kept"
        if reason:
            _logger.info("Stage %s: building (%s)", name, reason)
            self._build(manifest, outputs, wanted, build)
        else:
            _logger.info("Stage %s: kept", name)
        self._before = hashlib.sha256(manifest.read_bytes()).hexdigest()

    def _reason(self, name: str, manifest: Path, wanted: dict[str, Any]) -> str:
        if name in self._force:
            return "forced"
        try:
            found = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "not there"
        if {key: found.get(key) for key in wanted} != json.loads(json.dumps(wanted)):
            return "settings or an earlier stage changed"
        try:
            whole = all(_measured(self.root / output) == size for output, size in found["outputs"].items())
            for output in found["outputs"]:
                for index in (self.root / output).rglob(INDEX):
                    LineStore(index.parent).verify()
        except (OSError, UserError, KeyError, TypeError, AttributeError):
            whole = False
        return "" if whole else "damaged"

    def _build(
        self, manifest: Path, outputs: Sequence[str], wanted: dict[str, Any], build: Callable[[Path], object]
    ) -> None:
        part = self.root / f"{manifest.stem}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            build(part)
            manifest.unlink(missing_ok=True)
            for output in outputs:
                _remove(self.root / output)
                (self.root / output).parent.mkdir(parents=True, exist_ok=True)
                (part / output).replace(self.root / output)
        except OSError as error:
            raise UserError(
                f"{self.root} cannot be written ({error.strerror or error}); free some disk space or name another "
                "folder."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        manifest.parent.mkdir(exist_ok=True)
        write_json(manifest, {**wanted, "outputs": {output: _measured(self.root / output) for output in outputs}})


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _measured(path: Path) -> list[int]:
    """[files, bytes] of a file or of all files in a folder and below.

    Raises:
        OSError: there is nothing.
    """
    if path.is_file():
        return [1, path.stat().st_size]
    count, size = 0, 0
    for folder, _, names in os.walk(path, onerror=_raise):
        count += len(names)
        size += sum(os.stat(os.path.join(folder, name)).st_size for name in names)
    return [count, size]


def _raise(error: OSError) -> None:
    raise error
