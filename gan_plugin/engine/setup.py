"""From a command line to a frozen config."""

import argparse
import os
import re
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.projects.point_rend import add_pointrend_config
from fvcore.common.config import CfgNode as AnyCfgNode

from gan_plugin.config import add_gan_config
from gan_plugin.errors import UserError

from .check_config import check_values


def load_config(args: argparse.Namespace) -> CfgNode:
    """The config that `--config-file` and the command line's KEY VALUE pairs describe, frozen.

    Args:
        args: with `config_file` and `opts`, as Detectron2's `default_argument_parser` makes them.

    Raises:
        UserError: the file is missing or not YAML, or a key or a value does not exist or is out of range.
    """
    cfg = get_cfg()
    add_pointrend_config(cfg)
    add_gan_config(cfg)
    merge_options(cfg, args.config_file, args.opts)
    if cfg.MODEL.DEVICE == "cuda" and not _cuda_is_available():
        cfg.MODEL.DEVICE = "cpu"
    check_values(cfg)
    cfg.freeze()
    return cfg


def merge_options(cfg: AnyCfgNode, config_file: str, opts: list[str]) -> None:
    """Put a YAML file ("" for none), with its _BASE_, and then KEY VALUE pairs over the defaults in `cfg`.

    Raises:
        UserError: the file is missing or not YAML, or a key or a value does not exist.
    """
    if config_file:
        _merge_file(cfg, config_file)
    try:
        cfg.merge_from_list(_with_floats(cfg, opts))
    except (KeyError, ValueError, AssertionError) as error:
        raise UserError(f"The command line's config options are wrong: {_text(error)}.") from error


def _with_floats(cfg: AnyCfgNode, opts: list[str]) -> list[str]:
    """`opts` with 1 written as 1.0 where the key holds a float, which yacs insists on."""
    written = list(opts)
    for place in range(0, len(opts) - 1, 2):
        value: Any = cfg
        for part in opts[place].split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, float) and re.fullmatch(r"[+-]?\d+", str(opts[place + 1])):
            written[place + 1] = f"{opts[place + 1]}.0"
    return written


def _merge_file(cfg: AnyCfgNode, path: str) -> None:
    if not os.path.isfile(path):
        raise UserError(f"The config file {path} does not exist; check --config-file.")
    try:
        cfg.merge_from_file(path)
    except (yaml.YAMLError, KeyError, ValueError, AssertionError, OSError, AttributeError) as error:
        raise UserError(f"The config file {path} is wrong: {_text(error)}.") from error


def _text(error: Exception) -> str:
    return " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split()).rstrip(".")


def _cuda_is_available() -> bool:
    import torch

    return torch.cuda.is_available()
