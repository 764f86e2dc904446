"""Adversarial training of instance segmentation for Detectron2.

Importing the package registers its components (discriminators, objectives, sources of samples) and data sets with
Detectron2, and lets every meta-architecture obey `MODEL.GAN.ENABLED`; `add_gan_config(cfg)` adds the keys to a config.
"""

__version__ = "0.1.0"

from . import compat
from .config import add_gan_config
from .data.builtin import register_builtin_datasets
from .engine import AdversarialTrainer
from .errors import UserError
from .modeling import install_switch
from .modeling.lazy_node import make_adversarial

compat.apply()
install_switch()
register_builtin_datasets()

__all__ = ["AdversarialTrainer", "UserError", "__version__", "add_gan_config", "make_adversarial"]
