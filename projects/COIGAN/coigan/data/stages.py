"""Steps of preparation whose results are kept: done again only if asked for, changed or damaged.

How the raw data set comes (stages 1 and 2), and what training reads in the end.
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coigan.data.line_sets import INDEX, LineStore, write_json
from coigan.data.toy import write_toy_steel
from gan_plugin.errors import UserError, as_user_error

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


COMPETITION = "severstal-steel-defect-detection"
_SOURCE, _ARCHIVE = "source", "source.zip"
# sources that are no path
_WORDS = {"toy": "made-up steel", "kaggle": "a download by Kaggle's command line"}


def acquire(stages: Stages, source: str, toy: tuple[int, int, tuple[int, int]]) -> Path:
    """Run the stages `get` and `unpack`.

    Args:
        stages: of the data set.
        source: "toy"; "kaggle", which needs Kaggle's command line with its credentials; a zip; or a folder or JSON.
        toy: number of toy sheets, seed, and (height, width).

    Returns:
        The folder or JSON to read.

    Raises:
        UserError: there is nothing at `source`, it cannot be got or unpacked, or a folder has the name of a source.
    """
    if source in _WORDS and Path(source).exists():
        raise UserError(
            f"'{source}' asks for {_WORDS[source]}, and there is a {source} here as well; write ./{source} for "
            "that one, or call the command from another folder."
        )
    here = stages.root / _SOURCE
    if source == "toy":
        parameters = {"toy": [toy[0], toy[1], list(toy[2])]}
        stages.run("get", [_SOURCE], parameters, lambda part: write_toy_steel(part / _SOURCE, *toy))
        stages.run("unpack", [], {}, lambda part: None)
        return here
    if source == "kaggle":
        stages.run("get", [_ARCHIVE], {"kaggle": COMPETITION}, _download)
        stages.run("unpack", [_SOURCE], {}, lambda part: _unpack(stages.root / _ARCHIVE, part / _SOURCE))
        return here
    path = Path(source)
    if not path.exists():
        raise UserError(f"There is no {path}; name a folder, a zip or a COCO JSON, or use toy or kaggle.")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    place = {"path": str(path.resolve()), "files": len(files), "bytes": sum(file.stat().st_size for file in files)}
    stages.run("get", [], place, lambda part: None)
    if path.suffix.lower() == ".zip":
        stages.run("unpack", [_SOURCE], {}, lambda part: _unpack(path, part / _SOURCE))
        return here
    stages.run("unpack", [], {}, lambda part: None)
    return path


def _download(part: Path) -> None:
    advice = (
        f"accept the rules of {COMPETITION} on Kaggle and set up its API token, or download the zip by hand and name it"
    )
    program = shutil.which("kaggle")
    if program is None:
        raise UserError(f"Kaggle's command line is not installed; install it, then {advice}.")
    command = [program, "competitions", "download", "-c", COMPETITION, "-p", str(part)]
    result = subprocess.run(command, capture_output=True, text=True)
    found = list(part.glob("*.zip"))
    if result.returncode or not found:
        words = (result.stderr or result.stdout).strip().splitlines()[-1:] or ["no zip came"]
        raise UserError(f"Kaggle gave no data set ({words[0]}); {advice}.")
    found[0].rename(part / _ARCHIVE)


def _unpack(archive: Path, folder: Path) -> None:
    whole = as_user_error(f"{archive} is no whole zip", "download it again", zipfile.BadZipFile, EOFError)
    with whole, zipfile.ZipFile(archive) as file:
        file.extractall(folder)


PREPARED = "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
        root: its folder.
        classes: names in the order of the mask channels.
        tile: side of the tiles.
    """

    root: Path
    classes: tuple[str, ...]
    tile: int

    def tiles(self, kind: str) -> list[Path]:
        """The tiles of "base" (training, without defects), "train" or "test", sorted."""
        return sorted((self.root / kind).glob("*.png"))

    def objects(self, number: int) -> Path:
        """The object store of class `number`, of the training images."""
        return self.root / "objects" / str(number)


def open_prepared(root: str | Path) -> Prepared:
    """The prepared data set in `root`.

    Raises:
        UserError: there is none.
    """
    file = Path(root) / PREPARED
    with as_user_error(f"{root} holds no prepared data set", "make one with inpaint.py prepare"):
        content = json.loads(file.read_text(encoding="utf-8"))
        return Prepared(Path(root), tuple(content["classes"]), content["options"]["tile"])
