"""Detectron2 out of a wheel that carries it, checked file by file, as a wheel of its own."""

import base64
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LICENSE = ROOT / "LICENSE"  # the Apache License 2.0, under which Detectron2 is published as well
UPSTREAM = "https://github.com/facebookresearch/detectron2"
COMMIT = "864913f0e57e87a75c8cc0c7d79ecbd774fc669b"
VERSION = f"0.6+{COMMIT[:7]}"
DIST_INFO = f"detectron2-{VERSION}.dist-info"


class InstallError(Exception):
    """Why nothing was installed, in one sentence for the user."""


@dataclass(frozen=True)
class Carrier:
    """A published wheel that holds a copy of Detectron2, and what that copy must look like.

    Attributes:
        requirement: what pip is asked for, `name==version`.
        sha256: of the wheel, in hexadecimal.
        blobs: the list of Detectron2's files; a line is `git blob SHA-1, two spaces, path under detectron2/`.
        prefix: the package under which the wheel holds Detectron2, e.g. `LabGym`.
    """

    requirement: str
    sha256: str
    blobs: Path
    prefix: str


LABGYM = Carrier(
    requirement="labgym==3.1.2",
    sha256="a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b",
    blobs=Path(__file__).with_name("detectron2-864913f.blobs"),
    prefix="LabGym",
)


def git_blob_sha1(content: bytes) -> str:
    """The name git gives to a file with this content, so that a copy can be held against any clone of upstream."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_blobs(path: Path) -> dict[str, str]:
    """The file list as {path under detectron2/: git blob SHA-1}; lines that begin with # are comments."""
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))
    pairs = (line.split(maxsplit=1) for line in lines)
    return {name: digest for digest, name in pairs}


def extract(wheel: Path, carrier: Carrier) -> dict[str, bytes]:
    """Upstream's files from the carrier's wheel, as {path under detectron2/: content}.

    The carrier moved the package below its own and renamed the imports; the renaming is undone, and the result must
    be upstream's file for file. Nothing else in the wheel is read.

    Raises:
        InstallError: the wheel is missing, damaged or not the expected one, or any file differs, is missing or is
            one too many.
    """
    try:
        packed = wheel.read_bytes()
    except OSError as error:
        raise InstallError(f"cannot read {wheel} ({error.strerror}): give the path of a downloaded wheel") from error
    found = hashlib.sha256(packed).hexdigest()
    if found != carrier.sha256:
        raise InstallError(
            f"{wheel.name} is damaged or not the expected file (SHA-256 {found[:12]}... instead of "
            f"{carrier.sha256[:12]}...): download {carrier.requirement} again"
        )
    files = _unpack(wheel, carrier.prefix)
    _check_against(read_blobs(carrier.blobs), files, carrier)
    return files


def _unpack(wheel: Path, prefix: str) -> dict[str, bytes]:
    folder = f"{prefix}/detectron2/"
    files = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(folder) and not name.endswith("/"):
                    files[name.removeprefix(folder)] = archive.read(name)
    except zipfile.BadZipFile as error:
        raise InstallError(f"{wheel.name} is not a readable wheel ({error}): download it again") from error
    renamed = f"{prefix}.detectron2".encode()
    return {
        name: content.replace(renamed, b"detectron2") if name.endswith(".py") else content
        for name, content in files.items()
    }


def _check_against(expected: dict[str, str], files: dict[str, bytes], carrier: Carrier) -> None:
    problems = [f"{name} is missing" for name in sorted(expected.keys() - files.keys())]
    problems += [f"{name} does not belong there" for name in sorted(files.keys() - expected.keys())]
    problems += [
        f"{name} is not upstream's"
        for name in sorted(expected.keys() & files.keys())
        if git_blob_sha1(files[name]) != expected[name]
    ]
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise InstallError(
            f"the Detectron2 in {carrier.requirement} differs from {carrier.blobs.name}: {problems[0]}{more}; "
            f"install Detectron2 from {UPSTREAM} instead"
        )


def build_wheel(files: dict[str, bytes], folder: Path, carrier: Carrier) -> Path:
    """Write `files` as an installable wheel into `folder` and return its path.

    Args:
        files: {path under detectron2/: content}.
        folder: an existing folder.
        carrier: named in the wheel as the place the files came from.
    """
    contents = {f"detectron2/{name}": content for name, content in sorted(files.items())}
    contents[f"{DIST_INFO}/licenses/LICENSE"] = LICENSE.read_bytes()
    for name, text in (("ORIGIN", _origin(carrier)), ("METADATA", _METADATA), ("WHEEL", _WHEEL)):
        contents[f"{DIST_INFO}/{name}"] = text.encode()
    contents[f"{DIST_INFO}/RECORD"] = _record(contents).encode()
    wheel = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return wheel


def _record(contents: dict[str, bytes]) -> str:
    lines = []
    for name, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join(lines) + f"{DIST_INFO}/RECORD,,\n"


def _origin(carrier: Carrier) -> str:
    return (
        f"Detectron2, copyright Facebook, Inc. and its affiliates, under the Apache License 2.0 (licenses/LICENSE).\n"
        f"repository: {UPSTREAM}\n"
        f"commit: {COMMIT}\n"
        f"via: the wheel of {carrier.requirement} on PyPI, sha256 {carrier.sha256}\n"
        f"changed: nothing; each file's git blob SHA-1 was compared with that commit's\n"
        f"left out: the compiled extension detectron2._C\n"
    )


# No Requires-Dist: upstream's upper limits (iopath < 0.1.10 and others) are out of date and would fail `pip check`;
# requirements.txt pins versions that were tested together.
_METADATA = f"""\
Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: Detectron2, FAIR's platform for detection and segmentation (pure Python part, without detectron2._C)
Home-page: {UPSTREAM}
Author: FAIR
License: Apache-2.0
Classifier: License :: OSI Approved :: Apache Software License
Requires-Python: >=3.7
"""

_WHEEL = """\
Wheel-Version: 1.0
Generator: gan_plugin/tools/install_detectron2.py
Root-Is-Purelib: true
Tag: py3-none-any
"""
