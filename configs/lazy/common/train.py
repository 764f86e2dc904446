# Detectron2's common/train.py and what gan_plugin/engine/lazy_config.py adds to it, which says what each key means.
from gan_plugin.engine.lazy_config import train_defaults

train = train_defaults()
