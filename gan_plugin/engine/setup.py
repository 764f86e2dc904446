"""From a command line to a frozen config."""

import argparse
import logging
import re
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode, downgrade_config, get_cfg, upgrade_config
from detectron2.config.compat import guess_version
from detectron2.projects.point_rend import add_pointrend_config
from fvcore.common.config import CfgNode as AnyCfgNode

from gan_plugin.config import add_gan_config
from gan_plugin.config_files import read_config, words
from gan_plugin.errors import UserError

from .check_config import check_values

AddKeys = Callable[[CfgNode], None]


def default_config(add_keys: AddKeys | None = None) -> CfgNode:
    """Every key with its default: Detectron2's, PointRend's and ours.

    Args:
        add_keys: adds the config keys of a project that builds on the plugin.
    """
    cfg = get_cfg()
    add_pointrend_config(cfg)
    add_gan_config(cfg)
    if add_keys is not None:
        add_keys(cfg)
    return cfg


def load_config(args: argparse.Namespace, add_keys: AddKeys | None = None) -> CfgNode:
    """The config that `--config-file` and the command line's KEY VALUE pairs describe, frozen.

    Args:
        args: with `config_file` and `opts`, as Detectron2's `default_argument_parser` makes them.
        add_keys: as in `default_config`.

    Raises:
        UserError: the file is missing or not YAML, or a key or a value does not exist or is out of range.
    """
    cfg = default_config(add_keys)
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
        merge_file(cfg, config_file)
    try:
        cfg.merge_from_list(_with_floats(cfg, opts))
    except (KeyError, ValueError, AssertionError, TypeError, AttributeError) as error:
        raise UserError(f"The command line's config options are wrong: {words(error)}.") from error


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


def merge_file(cfg: AnyCfgNode, path: str) -> None:
    """Put a YAML file with its _BASE_ over `cfg`, as `merge_from_file` does, but as data: no tag of it runs code.

    Raises:
        UserError: as `read_config`, or a key or a value does not exist.
    """
    loaded = read_config(path)
    try:
        _merge_values(cfg, loaded, path)
    except (KeyError, ValueError, AssertionError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"The config file {path} is wrong: {words(error)}.") from error


def _merge_values(cfg: AnyCfgNode, loaded: dict[str, Any], path: str) -> None:
    node = type(cfg)(loaded)
    version = node.get("VERSION") or guess_version(node, path) if isinstance(cfg, CfgNode) else None
    if version is not None and version > cfg.VERSION:
        raise ValueError(f"it is of version {version}, and Detectron2 here reads up to version {cfg.VERSION}")
    if version is None or version == cfg.VERSION:
        cfg.merge_from_other_cfg(node)
        return
    # as Detectron2 reads the configs of its first versions
    logging.getLogger(__name__).warning(f"{path} is a config of version {version}, whose keys have other names now.")
    older = downgrade_config(cfg, to_version=version)
    older.merge_from_other_cfg(node)
    newer = upgrade_config(older)
    cfg.clear()
    cfg.update(newer)


def _cuda_is_available() -> bool:
    import torch

    return torch.cuda.is_available()
