"""Adversarial training of instance segmentation for Detectron2.

Importing the package registers its components (meta architecture, mask head, discriminators, objectives) and data sets
with Detectron2; `add_gan_config(cfg)` adds their keys to a config.
"""

__version__ = "0.1.0"

from . import compat
from .config import add_gan_config
from .data.builtin import register_builtin_datasets
from .engine import AdversarialTrainer
from .errors import UserError

compat.apply()
register_builtin_datasets()

__all__ = ["AdversarialTrainer", "UserError", "__version__", "add_gan_config"]
