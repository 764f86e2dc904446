"""The output directory of a run: writable, and nobody else's."""

import glob
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import yaml
from detectron2.config import CfgNode

from gan_plugin.errors import UserError

_PROBE_BYTES = 1 << 16
# What a checkpoint's optimizers and weights depend on; a run cannot change it half way.
_FIXED = (
    "MODEL.GAN.ENABLED",
    "MODEL.GAN.MODE",
    "MODEL.GAN.MASK.ENABLED",
    "MODEL.GAN.MASK.DISCRIMINATOR",
    "MODEL.GAN.MASK.CHANNELS",
    "MODEL.GAN.MASK.NORM",
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
    fixed = {key: look_up(cfg, key) for key in _FIXED}
    claim_folder(cfg.OUTPUT_DIR, fixed, resume=resume, eval_only=eval_only)


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
        key, weights_key: the config keys that name the folder and the initial weights.

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
    checkpoints = sorted(os.path.basename(file) for file in glob.glob(os.path.join(glob.escape(path), "*.pth")))
    if not checkpoints or eval_only:
        return
    if not resume:
        raise UserError(
            f"{key} {path} already holds a checkpoint of another run ({checkpoints[-1]}); add --resume to "
            f"continue that run, or set {key} to another folder."
        )
    _check_last_checkpoint(path, checkpoints)
    for name, was, now in _changes(path, fixed):
        raise UserError(
            f"The run in {path} has {name} {was}, but this config says {now}; resume it with what it had, "
            f"or start another run with its weights as {weights_key} and another {key}."
        )


def _check_last_checkpoint(path: str, checkpoints: list[str]) -> None:
    try:
        with open(os.path.join(path, "last_checkpoint"), encoding="utf-8") as file:
            last = file.read().strip()
    except OSError:
        last = ""
    if last not in checkpoints:
        raise UserError(
            f"{path}/last_checkpoint does not name one of the checkpoints there ({', '.join(checkpoints)}), "
            "so there is nothing certain to resume from; write the name of one of them into it."
        )


def _changes(path: str, fixed: Mapping[str, object]) -> list[tuple[str, object, object]]:
    """(key, value in the run's config.yaml, value now) of all that differs; a key that the run had not does not."""
    try:
        with open(os.path.join(path, "config.yaml"), encoding="utf-8") as file:
            before = read_plain(file)
    except (OSError, yaml.YAMLError):
        return []
    pairs = {key: (look_up(before, key), now) for key, now in fixed.items()}
    return [(key, was, now) for key, (was, now) in pairs.items() if was is not None and was != _plain(now)]


def look_up(node: Any, key: str) -> object:
    """The value at `key`, dots between its parts, of nested dictionaries; None if there is none."""
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
