"""How the raw data set comes: from Kaggle, from a zip, or made up (stages 1 and 2)."""

import shutil
import subprocess
import zipfile
from pathlib import Path

from coigan.toy import write_toy_steel
from gan_plugin.errors import UserError

from .stages import Stages

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
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive} is no whole zip ({error}); download it again.") from error
