"""The output directory of a run: writable, and nobody else's."""

import glob
import os
import re
import tempfile

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
    "SOLVER.OPTIMIZER",
    "SOLVER.DISC.OPTIMIZER",
)


def claim_output_dir(cfg: CfgNode, *, resume: bool, eval_only: bool) -> None:
    """Make sure that a run may write to `cfg.OUTPUT_DIR`, which is made if need be.

    Raises:
        UserError: it is no writable folder, or its disk is full; or it holds the checkpoint of another run and neither
            `resume` nor `eval_only` is set; or what it holds cannot be resumed by this config. Nothing in it has been
            changed then.
    """
    path = cfg.OUTPUT_DIR
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR {path} is not writable ({error.strerror}); set OUTPUT_DIR to a folder you may write to."
        ) from error
    if eval_only:
        return
    checkpoints = _names(path, "*.pth")
    if checkpoints and not resume:
        raise UserError(
            f"OUTPUT_DIR {path} already holds a checkpoint of another run ({checkpoints[-1]}); add --resume to "
            "continue that run, or set OUTPUT_DIR to another folder."
        )
    if checkpoints:
        last = _last_checkpoint(path, checkpoints)
        if last:
            _check_resumable(cfg)
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


def _check_resumable(cfg: CfgNode) -> None:
    try:
        with open(os.path.join(cfg.OUTPUT_DIR, "config.yaml"), encoding="utf-8") as file:
            before = yaml.safe_load(file)
    except (OSError, yaml.YAMLError):
        return
    for key in _FIXED:
        was, now = _look_up(before, key), _look_up(cfg, key)
        if was is not None and _plain(was) != _plain(now):
            raise UserError(
                f"The run in {cfg.OUTPUT_DIR} has {key} {was}, but this config says {now}; resume it with what it had, "
                "or start another run with its weights as MODEL.WEIGHTS and another OUTPUT_DIR."
            )


def _look_up(node: object, key: str) -> object:
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
