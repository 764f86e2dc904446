"""Procedural street scenes in Cityscapes' official layout, for trying things without the real set."""

import json
import shutil
from pathlib import Path

from tqdm import tqdm

from gan_plugin.errors import UserError

from .writer import FILES_PER_PICTURE, write_picture

__all__ = ["write_toy_cityscapes"]

_MANIFEST = "toy_cityscapes.json"
_LEAST_SIZE = (64, 32)


def write_toy_cityscapes(
    out: str | Path, train: int, val: int, seed: int = 0, size: tuple[int, int] = (512, 256)
) -> bool:
    """Write `train` and `val` street scenes below out/cityscapes, so that `out` can be DETECTRON2_DATASETS.

    Pictures have all eight evaluated classes as silhouettes, crowds that overlap in painter's order, far small objects,
    group regions and ignored regions. Colour and texture do not depend on the class. Picture k of a split is the same
    whatever `train` and `val` are, and the same arguments give the same bytes.

    Args:
        out: a folder, made if need be.
        train, val: numbers of pictures.
        seed: 0 or more.
        size: width and height in pixels, at least 64 x 32.

    Returns:
        False if exactly this set was there already and nothing was done.

    Raises:
        UserError: an argument is out of range, `out` cannot be written, or it holds something else.
    """
    if min(train, val, seed) < 0 or train + val == 0:
        raise UserError(f"--train {train}, --val {val} and --seed {seed} must be 0 or more, with at least one picture.")
    if size[0] < _LEAST_SIZE[0] or size[1] < _LEAST_SIZE[1]:
        raise UserError(f"--size {size[0]}x{size[1]} is too small for a street; use at least 64x32.")
    root = Path(out)
    wanted = {"train": train, "val": val, "seed": seed, "size": list(size)}
    if _present(root / "cityscapes", wanted):
        return False
    try:
        _write(root, wanted)
    except OSError as error:
        raise UserError(f"{root} cannot be written ({error.strerror or error}); name another folder.") from error
    return True


def _present(folder: Path, wanted: dict) -> bool:
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    try:
        found = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds other files, maybe the real Cityscapes; name another folder.") from error
    if found != wanted:
        raise UserError(f"{folder} holds another toy set ({found}); name another folder, or delete that one.")
    missing = (
        FILES_PER_PICTURE * (wanted["train"] + wanted["val"]) + 1 - sum(path.is_file() for path in folder.rglob("*"))
    )
    if missing:
        raise UserError(
            f"The toy set in {folder} is no longer whole ({missing} files missing); delete it to write it anew."
        )
    return True


def _write(root: Path, wanted: dict) -> None:
    # Written beside its place and moved there at the end, so that an interrupted set does not pass for a whole one.
    staging = root / "cityscapes.part"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for split in ("train", "val"):
        for index in tqdm(range(wanted[split]), desc=split, unit="picture", disable=None):
            write_picture(staging, split, index, wanted["seed"], tuple(wanted["size"]))
    (staging / _MANIFEST).write_text(json.dumps(wanted) + "\n", encoding="utf-8")
    staging.replace(root / "cityscapes")
