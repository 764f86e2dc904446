"""The output directory of a run: writable, and nobody else's."""

import glob
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from gan_plugin.compat import present_name
from gan_plugin.config_files import Change, differences, flat, look_up, read_yaml, told
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import UNFINISHED, write_whole

from .checkpoint import FINAL, LAST, SUFFIX, checkpoint_file, is_best, periodic_checkpoints
from .provenance import write_facts
from .setup import default_config

CONFIG = "config.yaml"
_PROBE_BYTES = 1 << 16
# What of MODEL a resumed run may change: where it runs, what it starts from, what only tests and pictures look at.
FREE_KEYS = (
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "MODEL.GAN.COMPILE",
    "MODEL.GAN.EMA.EVALUATE",
    "MODEL.GAN.VIS_PERIOD",
    "MODEL.PANOPTIC_FPN.COMBINE",
    "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS",
    "MODEL.POINT_HEAD.SUBDIVISION_STEPS",
    "MODEL.RETINANET.NMS_THRESH_TEST",
    "MODEL.RETINANET.SCORE_THRESH_TEST",
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
    "MODEL.RPN.POST_NMS_TOPK_TEST",
    "MODEL.RPN.PRE_NMS_TOPK_TEST",
)
# What a run did that is from before a key existed, where that is not the key's default now.
_FORMER = {"MODEL.GAN.BALANCE.SHARE": 0.0}
# What else a checkpoint depends on.
_FIXED = ("SOLVER.OPTIMIZER",)
_FIXED_TO_ALTERNATE = ("SOLVER.DISC.OPTIMIZER",)


def claim_output_dir(cfg: CfgNode, *, resume: bool, eval_only: bool) -> None:
    """`claim_folder` for OUTPUT_DIR; a resumed run keeps all of MODEL but FREE_KEYS, and its optimizers."""
    gan = cfg.MODEL.GAN
    fixed = flat({"MODEL": cfg.MODEL})
    if not gan.ENABLED:
        # of a game that is not played the average acts, and what is done about objects without a mask
        kept = ("MODEL.GAN.ENABLED", *(f"MODEL.GAN.EMA.{name}" for name in gan.EMA), "MODEL.GAN.MASK.BOX_ONLY")
        kept += tuple(f"MODEL.GAN.UNPAIRED.{name}" for name in gan.UNPAIRED) * gan.MASK.BOX_ONLY
        fixed = {key: value for key, value in fixed.items() if not key.startswith("MODEL.GAN.") or key in kept}
    free = tuple(f"{key}." for key in FREE_KEYS)
    fixed = {key: value for key, value in fixed.items() if not f"{key}.".startswith(free)}
    fixed |= values_of(cfg, _FIXED + _FIXED_TO_ALTERNATE * (gan.ENABLED and gan.MODE == "alternating"))
    claim_folder(cfg.OUTPUT_DIR, fixed, flat(default_config()) | _FORMER, resume=resume, eval_only=eval_only)


def claim_folder(
    path: str,
    fixed: Mapping[str, Any],
    defaults: Mapping[str, Any],
    *,
    resume: bool,
    eval_only: bool,
    key: str = "OUTPUT_DIR",
    weights_key: str = "MODEL.WEIGHTS",
    owns: Callable[[str], bool] | None = None,
) -> None:
    """Make sure that a run may write to the folder `path`, which is made if need be.

    Args:
        path: the output directory.
        fixed: config keys that a resumed run must not change, dots between their parts, with their values.
        defaults: the same of all keys, for a run from before one of `fixed` existed: it did what is the default now.
        resume, eval_only: what the run is going to do.
        key, weights_key: the config keys that name the folder and the initial weights; "" for a tool without the last.
        owns: of a LazyConfig, whose config.yaml may describe Python objects and need not have the keys of `fixed`:
            whether a run must neither gain nor lose a key.

    Raises:
        UserError: it is no writable folder, or its disk is full; or it holds the checkpoint of another run and neither
            `resume` nor `eval_only` is set; or what it holds cannot be resumed by this config. Nothing in it has been
            changed then.
    """
    with as_user_error(f"{key} {path} is not writable", f"set {key} to a folder you may write to", OSError):
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    if eval_only:
        return
    checkpoints = _names(path, f"*{SUFFIX}")
    if checkpoints and not resume:
        raise UserError(
            f"{key} {path} already holds a checkpoint of another run ({checkpoints[-1]}); add --resume to "
            f"continue that run, or set {key} to another folder."
        )
    last = _last_checkpoint(path, checkpoints) if checkpoints else ""
    if last:
        if changes := _changes(path, fixed, defaults, owns):
            other = f" with its weights as {weights_key} and" if weights_key else " in"
            config = os.path.join(path, CONFIG)
            raise UserError(
                f"The run in {path} was begun with {told(changes)}; resume it with what it had ({config} has it all), "
                f"or start another run{other} another {key}."
            )
        if not os.path.exists(os.path.join(path, LAST)):
            write_whole(os.path.join(path, LAST), last)
    for name in [*_names(path, f"model_*{UNFINISHED}"), *_names(path, f"{LAST}{UNFINISHED}")]:
        os.remove(os.path.join(path, name))


def _names(folder: str, pattern: str) -> list[str]:
    return sorted(os.path.basename(file) for file in glob.glob(os.path.join(glob.escape(folder), pattern)))


def _last_checkpoint(folder: str, checkpoints: list[str]) -> str:
    """The one to resume from, which is "" for a run that was killed before its first."""
    tag = os.path.join(folder, LAST)
    if not os.path.exists(tag) and os.path.exists(os.path.join(folder, "config.yaml")):
        # A kill may come after the first checkpoint and before it is named there, but not after two.
        current = [name for name in checkpoints if not is_best(name)]
        goes_on = [file.name for file in (*periodic_checkpoints(folder).values(), checkpoint_file(folder, FINAL))]
        if not current or len(current) == 1 and current[0] in goes_on:
            return "".join(current)
    try:
        with open(tag, encoding="utf-8") as file:
            last = file.read().strip()
    except OSError:
        last = ""
    if last not in checkpoints:
        raise UserError(
            f"{folder}/{LAST} does not name one of the checkpoints there ({', '.join(checkpoints)}), "
            "so there is nothing certain to resume from; write the name of one of them into it."
        )
    return last


def _changes(
    path: str, fixed: Mapping[str, Any], defaults: Mapping[str, Any], owns: Callable[[str], bool] | None
) -> list[Change]:
    """What differs between the run's own config.yaml, if it left one, and `fixed`; see `claim_folder`."""
    file = os.path.join(path, CONFIG)
    if not os.path.isfile(file):
        return []
    try:
        with open(file, "rb") as opened:
            content = read_yaml(opened.read(), f"The config {file} of the run", objects=owns is not None)
    except OSError as error:
        raise UserError(f"The config {file} of the run cannot be read ({error.strerror}).") from error
    if not isinstance(content, dict):
        raise UserError(f"The config {file} of the run is damaged; write what it was begun with there, or delete it.")
    before = {key: value for key, value in flat(content).items() if key in fixed or owns and owns(key)}
    if owns is None:
        # nobody can say what a key without a default was before it existed
        before |= {key: value for key, value in fixed.items() if key not in before and key not in defaults}
    changes = differences(before, fixed, defaults)
    # an optimizer's name may be in capitals, and what a LazyConfig calls may have moved
    return [
        (key, was, now) for key, was, now in changes if present_name(str(was)).lower() != present_name(str(now)).lower()
    ]


def begin_run(folder: str, args: Any, config: str, *logs: str, seed: int, benchmark: bool = False) -> None:
    """Detectron2's `default_setup`, logs and random numbers, without its config.yaml; that is `save_config`'s.

    Args:
        folder: of the run, which gets log.txt and run.json.
        args: of the command line, for both.
        config: as YAML, for the log.
        logs: names of the loggers to set up besides Detectron2's.
        seed: of the random numbers, which differ between processes; below 0 for any.
        benchmark: whether cuDNN looks for its fastest algorithms.
    """
    rank = comm.get_rank()
    write_facts(folder, args)
    for name in ("fvcore", *logs):
        setup_logger(folder, distributed_rank=rank, name=name, abbrev_name=name.removesuffix("_plugin"))
    logger = setup_logger(folder, distributed_rank=rank)
    logger.info(f"Process {rank} of {comm.get_world_size()}")
    logger.info(f"Environment info:\n{collect_env_info()}")
    logger.info(f"Command line arguments: {args}")
    logger.info(f"Running with full config:\n{config}")
    seed_all_rng(None if seed < 0 else seed + rank)
    torch.backends.cudnn.benchmark = benchmark


def save_config(folder: str, config: str, *, over_run: bool = True) -> None:
    """Leave `config` as the folder's config.yaml; call it once a checkpoint that is resumed has turned out to fit.

    Args:
        folder: of the run.
        config: YAML.
        over_run: False for what is no training, which leaves the config of one alone.
    """
    file = os.path.join(folder, CONFIG)
    if comm.is_main_process() and (over_run or not os.path.exists(file)):
        write_whole(file, config)


def values_of(cfg: CfgNode, keys: Iterable[str]) -> dict[str, Any]:
    """{key: value} for the `fixed` of `claim_folder`; of a node in `keys` all that it holds."""
    values: dict[str, Any] = {}
    for key in keys:
        value = look_up(cfg, key)
        values |= flat(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return values
