#!/usr/bin/env python
"""Install Detectron2 into this Python, from PyPI alone, as a package that pip can show and uninstall.

    python tools/install_detectron2.py [--wheel labgym-3.1.2-py3-none-any.whl]

A Detectron2 that already works is kept. Otherwise the wheel of labgym 3.1.2 is downloaded, because it carries an
unchanged copy of Detectron2 (which is not on PyPI itself); only that copy is taken, and each of its files is checked
against the list of upstream's commit in detectron2-864913f.blobs. If anything is wrong, nothing is installed.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from _command_line import Parser, stopped
from _detectron2_wheel import LABGYM, Carrier, InstallError, build_wheel, extract

EXIT_CODE = 2
# What the plugin uses, so that a half-broken copy is not mistaken for a working one.
IMPORT_CHECK = (
    "import detectron2, detectron2.model_zoo, detectron2.engine;"
    "print(getattr(detectron2, '__version__', 'unknown'), detectron2.__path__[0])"
)
TORCH_CHECK = "import torch; print(torch.__version__); import torchvision"


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in an empty folder, where no `detectron2` folder can be mistaken for the installed one."""
    with tempfile.TemporaryDirectory() as empty:
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=empty, check=False)


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no message"


def check_torch() -> None:
    """Refuse a torch that torchvision cannot be imported with; no torch at all is for requirements.txt to correct.

    Raises:
        InstallError: torchvision does not import, usually because torch is a `+cpu` build.
    """
    check = run_python("-c", TORCH_CHECK)
    version = check.stdout.strip()
    if check.returncode == 0 or not version:
        return
    reason = last_line(check.stderr)
    if "No module named 'torchvision'" in reason:
        return
    raise InstallError(
        f"torchvision does not work with the installed torch {version} ({reason}): install the pair that "
        f"requirements.txt pins, from PyPI and not a +cpu build"
    )


def working_detectron2() -> str | None:
    """`version path` of the Detectron2 this interpreter imports, or None if it has none that works."""
    check = run_python("-c", IMPORT_CHECK)
    return last_line(check.stdout) if check.returncode == 0 else None


def download(carrier: Carrier, folder: Path) -> Path:
    """Fetch the carrier's wheel, and nothing it depends on, into `folder`.

    Raises:
        InstallError: pip could not get it.
    """
    options = ["-q", "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "-d", str(folder)]
    result = run_python("-m", "pip", "download", *options, carrier.requirement)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or not wheels:
        raise InstallError(
            f"cannot download {carrier.requirement}, which carries Detectron2 ({last_line(result.stderr)}): check the "
            f"network, or download that wheel elsewhere and pass --wheel PATH"
        )
    return wheels[0]


def _orphan() -> Path | None:
    """A detectron2 folder in site-packages that belongs to no installed package, so that pip would not replace it."""
    folder = Path(sysconfig.get_path("purelib")) / "detectron2"
    try:
        distribution("detectron2")
    except PackageNotFoundError:
        return folder if os.path.lexists(folder) else None
    return None


@contextmanager
def _moved_aside(folder: Path | None) -> Iterator[None]:
    """Keep `folder` under another name during the block, and after it unless the block fails."""
    if folder is None:
        yield
        return
    aside = Path(tempfile.mkdtemp(prefix="detectron2.broken-", dir=folder.parent))
    folder.rename(aside / folder.name)
    try:
        yield
    except BaseException:
        (aside / folder.name).rename(folder)
        aside.rmdir()
        raise
    print(f"A detectron2 that could not be imported was moved to {aside}; delete it if you do not miss it.")


def install(wheel: Path) -> None:
    """Install a built wheel with pip, without dependencies or network.

    Raises:
        InstallError: pip failed; it has put back what was there before.
    """
    # --force-reinstall: pip would otherwise keep a broken installation of the same version
    options = ["-q", "--no-deps", "--no-index", "--force-reinstall", "--disable-pip-version-check"]
    with _moved_aside(_orphan()):
        result = run_python("-m", "pip", "install", *options, str(wheel))
        if result.returncode:
            raise InstallError(
                f"pip could not install Detectron2 ({last_line(result.stderr)}): see that folder and pip"
            )


def ensure_detectron2(wheel: Path | None, carrier: Carrier) -> None:
    """Leave this interpreter with a Detectron2 that imports.

    Args:
        wheel: the carrier's wheel, already downloaded; None downloads it.
        carrier: which wheel to take Detectron2 from.

    Raises:
        InstallError: why that is impossible.
    """
    check_torch()
    if present := working_detectron2():
        print(f"Detectron2 {present} works and is kept.")
        return
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            print(f"Downloading {carrier.requirement}, which carries Detectron2 ...")
        files = extract(wheel or download(carrier, Path(folder)), carrier)
        install(build_wheel(files, Path(folder), carrier))
    check = run_python("-c", IMPORT_CHECK)
    if check.returncode:
        raise InstallError(
            f"Detectron2 is installed but does not import ({last_line(check.stderr)}): "
            f"run `pip install -r requirements.txt` and this tool again"
        )
    print(f"Detectron2 {last_line(check.stdout)} is installed ({len(files)} files, all equal to upstream's).")


def main(arguments: list[str] | None = None, carrier: Carrier = LABGYM) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {carrier.requirement}, already downloaded")
    wheel = parser.parse_args(arguments).wheel
    try:
        ensure_detectron2(wheel and wheel.absolute(), carrier)
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        return stopped()
    return 0


if __name__ == "__main__":
    sys.exit(main())
