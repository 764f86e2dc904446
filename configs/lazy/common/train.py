# Detectron2's common/train.py and what gan_plugin/engine/lazy_config.py adds; gan_plugin/config.py says what it means.
from gan_plugin.engine.lazy_config import train_defaults

train = train_defaults()
