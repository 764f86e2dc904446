"""The configs that come with the package, by name, as `detectron2.model_zoo` has Detectron2's."""

import argparse
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig

from gan_plugin.errors import UserError

_KINDS = (".yaml", ".py")


def get_config_file(name: str) -> str:
    """The path of a config that comes with the package.

    Args:
        name: as under `configs/`, such as "gan_mask_rcnn_cityscapes.yaml" or "lazy/gan_mask_rcnn_cityscapes.py".

    Raises:
        UserError: there is none of that name; the sentence lists those there are.
    """
    folder = _folder()
    if not (folder / name).is_file():
        known = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in _KINDS)
        raise UserError(f"There is no config {name!r}; name one of {', '.join(known)}.")
    return str(folder / name)


def get_config(name: str) -> Any:
    """The config of that name: a CfgNode with Detectron2's and the plugin's defaults below it, or a LazyConfig.

    Its MODEL.DEVICE is "cpu" where there is no GPU, as in Detectron2's model zoo.

    Raises:
        UserError: there is none of that name.
    """
    from gan_plugin.engine.setup import load_config

    path = get_config_file(name)
    if path.endswith(".py"):
        return LazyConfig.load(path)
    cfg = load_config(argparse.Namespace(config_file=path, opts=[]))
    cfg.defrost()
    return cfg


def _folder() -> Path:
    # an installation has them in the package, a checkout beside it
    package = Path(__file__).resolve().parent
    return next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())
