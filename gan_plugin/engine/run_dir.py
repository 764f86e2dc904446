"""The output directory of a run: writable, and nobody else's."""

import glob
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from detectron2.config import CfgNode

from gan_plugin.errors import UserError
from gan_plugin.files import UNFINISHED, write_whole

from .checkpoint import BEST_PREFIX

_PROBE_BYTES = 1 << 16
_TAG = "last_checkpoint"
# What a checkpoint's optimizers and weights depend on; a run cannot change it half way.
_FIXED = (
    "MODEL.GAN.ENABLED",
    "MODEL.GAN.MODE",
    "MODEL.GAN.MASK.ENABLED",
    "MODEL.GAN.MASK.DISCRIMINATOR",
    "MODEL.GAN.MASK.CHANNELS",
    "MODEL.GAN.MASK.NORM",
    "MODEL.GAN.BOX.ENABLED",
    "MODEL.GAN.BOX.DISCRIMINATOR",
    "MODEL.GAN.BOX.CHANNELS",
    "MODEL.GAN.BOX.NORM",
    "MODEL.GAN.REG.SPECTRAL_NORM",
    "SOLVER.OPTIMIZER",
    "SOLVER.DISC.OPTIMIZER",
)


class _PlainLoader(yaml.SafeLoader):
    """Reads what a LazyConfig leaves, whose objects are of no interest here, and runs none of them."""


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def read_plain(source: Any) -> Any:
    """The YAML of `source`, text or an open file, with None for every object of Python."""
    return yaml.load(source, _PlainLoader)


def claim_output_dir(cfg: CfgNode, *, resume: bool, eval_only: bool) -> None:
    """`claim_folder` for OUTPUT_DIR."""
    claim_folder(cfg.OUTPUT_DIR, values_of(cfg, _FIXED), resume=resume, eval_only=eval_only)


def claim_folder(
    path: str,
    fixed: Mapping[str, object],
    *,
    resume: bool,
    eval_only: bool,
    key: str = "OUTPUT_DIR",
    weights_key: str = "MODEL.WEIGHTS",
) -> None:
    """Make sure that a run may write to the folder `path`, which is made if need be.

    Args:
        path: the output directory.
        fixed: config keys that a resumed run must not change, dots between their parts, with their values.
        resume, eval_only: what the run is going to do.
        key, weights_key: the config keys that name the folder and the initial weights; "" for a tool without the last.

    Raises:
        UserError: it is no writable folder, or its disk is full; or it holds the checkpoint of another run and neither
            `resume` nor `eval_only` is set; or what it holds cannot be resumed by this config. Nothing in it has been
            changed then.
    """
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"{key} {path} is not writable ({error.strerror}); set {key} to a folder you may write to."
        ) from error
    if eval_only:
        return
    checkpoints = _names(path, "*.pth")
    if checkpoints and not resume:
        raise UserError(
            f"{key} {path} already holds a checkpoint of another run ({checkpoints[-1]}); add --resume to "
            f"continue that run, or set {key} to another folder."
        )
    last = _last_checkpoint(path, checkpoints) if checkpoints else ""
    if last:
        for name, was, now in _changes(path, fixed):
            other = f" with its weights as {weights_key} and" if weights_key else " in"
            raise UserError(
                f"The run in {path} has {name} {was}, but this config says {now}; resume it with what it had, "
                f"or start another run{other} another {key}."
            )
        if not os.path.exists(os.path.join(path, _TAG)):
            write_whole(os.path.join(path, _TAG), lambda file: file.write(last.encode()), "Free some disk space.")
    for name in [*_names(path, f"model_*{UNFINISHED}"), *_names(path, f"{_TAG}{UNFINISHED}")]:
        os.remove(os.path.join(path, name))


def _names(folder: str, pattern: str) -> list[str]:
    return sorted(os.path.basename(file) for file in glob.glob(os.path.join(glob.escape(folder), pattern)))


def _last_checkpoint(folder: str, checkpoints: list[str]) -> str:
    """The one to resume from, which is "" for a run that was killed before its first."""
    tag = os.path.join(folder, _TAG)
    if not os.path.exists(tag) and os.path.exists(os.path.join(folder, "config.yaml")):
        # A kill may come after the first checkpoint and before it is named there, but not after two.
        current = [name for name in checkpoints if not name.startswith(BEST_PREFIX)]
        if not current or len(current) == 1 and re.fullmatch(r"model_(\d{7}|final)\.pth", current[0]):
            return "".join(current)
    try:
        with open(tag, encoding="utf-8") as file:
            last = file.read().strip()
    except OSError:
        last = ""
    if last not in checkpoints:
        raise UserError(
            f"{folder}/{_TAG} does not name one of the checkpoints there ({', '.join(checkpoints)}), "
            "so there is nothing certain to resume from; write the name of one of them into it."
        )
    return last


def _changes(path: str, fixed: Mapping[str, object]) -> list[tuple[str, object, object]]:
    """(key, value in the run's config.yaml, value now) of all that differs; a key that the run had not does not."""
    try:
        with open(os.path.join(path, "config.yaml"), encoding="utf-8") as file:
            before = read_plain(file)
    except (OSError, yaml.YAMLError):
        return []
    pairs = {key: (look_up(before, key), now) for key, now in fixed.items()}
    return [(key, was, now) for key, (was, now) in pairs.items() if was is not None and was != _plain(now)]


def values_of(cfg: CfgNode, keys: Sequence[str]) -> dict[str, object]:
    """{key: value} for the `fixed` of `claim_folder`; of a node in `keys` all that it holds."""
    values: dict[str, object] = {}
    for key in keys:
        value = look_up(cfg, key)
        inside = [f"{key}.{name}" for name in value] if isinstance(value, dict) else []
        values |= values_of(cfg, inside) if inside else {key: value}
    return values


def look_up(node: Any, key: str) -> object:
    """The value at `key`, dots between its parts, of nested dictionaries; None if there is none."""
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
