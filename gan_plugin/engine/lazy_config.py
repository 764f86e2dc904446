"""From a command line to a checked LazyConfig, and from its nodes to objects."""

import argparse
import copy
import difflib
import inspect
import re
from collections.abc import Iterable
from typing import Any

import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from detectron2.utils.registry import _convert_target_to_string, locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from gan_plugin.config import KEYS
from gan_plugin.config_files import flat, read_config, read_yaml
from gan_plugin.data.examine import Demand
from gan_plugin.data.subsets import DEFAULT_SIZES
from gan_plugin.errors import UserError, first_line
from gan_plugin.files import check_exists
from gan_plugin.rules import FREE, Keys, Rule, defaults_of, rules_of, whole

_GAN: Any = KEYS["MODEL"]["GAN"]
_SOLVER: Any = KEYS["SOLVER"]
# What `train` has beside the keys of Detectron2's common/train.py; gan_plugin/config.py says what each means.
_TRAIN: Keys = {
    # of every random number, the order of images included; below 0 another one in each run
    "seed": (-1, FREE),
    "accumulate": _SOLVER["ACCUMULATE"],
    "gradient_shares_period": _SOLVER["GRADIENT_SHARES_PERIOD"],
    "best_metric": KEYS["TEST"]["BEST_METRIC"],
    # "alternating" takes disc_optimizer for the discriminators
    "gan": {"mode": _GAN["MODE"], "order": _GAN["ORDER"], "disc_steps": _GAN["DISC_STEPS"]},
    "ema": {"decay": _GAN["EMA"]["DECAY"], "evaluate": _GAN["EMA"]["EVALUATE"]},
}
_RULES = rules_of(_TRAIN, "train.") | {
    "train.max_iter": whole(1),
    "train.eval_period": whole(0),
    "train.log_period": whole(1),
    "train.checkpointer.period": whole(1),
    "train.device": Rule(lambda value: str(value).split(":")[0] in ("cuda", "cpu"), "cuda or cpu"),
}
_NEEDED = ("model", "dataloader.train", "optimizer", "lr_multiplier")
_NEEDED_TO_ALTERNATE = ("disc_optimizer", "disc_lr_multiplier")
# What a checkpoint depends on besides the model; a run cannot change it half way.
_FIXED = (
    "train.gan.mode",
    "train.gan.order",
    "train.gan.disc_steps",
    "train.ema.decay",
    "optimizer._target_",
    "disc_optimizer._target_",
)
# "${train.gan.mode}"
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_ABSENT = object()


def train_defaults() -> Any:
    """`train` of Detectron2's common/train.py with our keys."""
    return OmegaConf.merge(model_zoo.get_config("common/train.py").train, defaults_of(_TRAIN))


def load_lazy_config(args: argparse.Namespace) -> DictConfig:
    """The config that `--config-file` and the command line's key=value overrides describe.

    Args:
        args: with `config_file` and `opts`, as Detectron2's `default_argument_parser` makes them.

    Raises:
        UserError: the file is missing or fails, or a key or a value does not exist or is out of range.
    """
    cfg = _load_file(args.config_file)
    cfg.train = OmegaConf.merge(train_defaults(), cfg.get("train", {}))
    for override in args.opts:
        _apply(cfg, override)
    if cfg.train.device == "cuda" and not torch.cuda.is_available():
        cfg.train.device = "cpu"
    _check(cfg, args.config_file)
    return cfg


def _load_file(path: str) -> DictConfig:
    if not path:
        raise UserError("There is no config: name a LazyConfig with --config-file, such as one in configs/lazy/.")
    check_exists(path, "The config file", "check --config-file")
    if path.endswith((".yaml", ".yml")):
        # Detectron2 would make the objects that it describes.
        return OmegaConf.create(read_config(path), flags={"allow_objects": True})
    try:
        return LazyConfig.load(path)
    except Exception as error:  # a config is code, which may fail in any way
        raise UserError(f"The config file {path} is wrong: {type(error).__name__}: {first_line(error)}.") from error


def _apply(cfg: DictConfig, override: str) -> None:
    try:
        parsed = OverridesParser.create().parse_override(override)
        if not (parsed.is_add() or parsed.is_delete()):
            _check_key(cfg, parsed.key_or_group)
        LazyConfig.apply_overrides(cfg, [override])
    except (HydraException, OmegaConfBaseException, KeyError, NotImplementedError) as error:
        raise UserError(f"The override {override!r} is wrong: {first_line(error)}; write it as key=value.") from error


def _check_key(cfg: DictConfig, key: str) -> None:
    """Refuse a key that nothing would read; a call's argument may be one that has its default so far."""
    if OmegaConf.select(cfg, key, default=_ABSENT) is not _ABSENT:
        return
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if isinstance(node, DictConfig) and "_target_" in node:
        return
    known = [str(entry) for entry in node] if isinstance(node, DictConfig) else []
    near = difflib.get_close_matches(name, known, n=1) or sorted(known)
    raise UserError(
        f"The config has no key {key}"
        + (f"; {parent or 'it'} has {', '.join(near)}." if near else ".")
        + f" To add a key of your own write +{key}=value."
    )


def _check(cfg: DictConfig, path: str) -> None:
    needed = _NEEDED + (_NEEDED_TO_ALTERNATE if cfg.train.gan.mode == "alternating" else ())
    missing = [key for key in needed if OmegaConf.select(cfg, key) is None]
    if missing:
        raise UserError(f"The config {path} has no {', '.join(missing)}; see configs/lazy/ for what a run needs.")
    try:
        OmegaConf.resolve(copy.deepcopy(cfg))
    except OmegaConfBaseException as error:
        raise UserError(f"The config {path} is wrong: {first_line(error)}.") from error
    for key, rule in _RULES.items():
        rule.check(key, OmegaConf.select(cfg, key))
    gan, accumulate = cfg.train.gan, cfg.train.accumulate
    if gan.mode == "alternating" and accumulate > 1 and (gan.order != "paper" or gan.disc_steps > 1):
        raise UserError(
            f"train.accumulate {accumulate} needs train.gan.order=paper and train.gan.disc_steps=1 in the alternating "
            "mode: a discriminator that steps first would have to see all batches first."
        )


def build(cfg: DictConfig, key: str) -> Any:
    """The object that the node at `key` describes.

    Raises:
        UserError: it does not describe one: a missing or unknown argument, a name that leads nowhere.
    """
    return _instantiate(OmegaConf.select(cfg, key), key)


def build_optimizer(cfg: DictConfig, key: str, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer at `key` over the parameters of `model` that learn; `cfg` stays as it is. Errors as in `build`."""
    node = copy.deepcopy(OmegaConf.select(cfg, key))
    if not isinstance(node.get("params"), DictConfig):
        raise UserError(f"{key}.params must be a call with an argument `model`, as in Detectron2's common/optim.py.")
    node.params.model = model
    optimizer = _instantiate(node, key)
    for group in optimizer.param_groups:
        # A checkpoint holds these values, and must be readable without omegaconf.
        group.update({name: tuple(value) for name, value in group.items() if isinstance(value, ListConfig)})
    return optimizer


def _instantiate(node: Any, key: str) -> Any:
    try:
        return instantiate(node)
    except UserError:
        raise
    except (OmegaConfBaseException, ImportError) as error:
        raise UserError(f"{key} of the config is wrong: {first_line(error)}.") from error
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise UserError(f"{key} of the config is wrong: {first_line(error)}.") from error


def dataset_names(cfg: DictConfig, parts: Iterable[str]) -> list[str]:
    """The names of the data sets of `dataloader.<part>.dataset.names`, one or several each."""
    found = [OmegaConf.select(cfg, f"dataloader.{part}.dataset.names", default=[]) for part in parts]
    return [name for names in found for name in ([names] if isinstance(names, str) else names)]


def is_fixed(key: str) -> bool:
    """Whether a resumed run must not change the flat `key`: all of the model but what only tests and pictures need."""
    leaf = key.rpartition(".")[2]
    in_model = key.startswith("model.") and not leaf.startswith("test_") and leaf != "sample_period"
    return in_model or key in _FIXED


def demand_of(cfg: DictConfig, *, train: bool) -> Demand:
    """What the training or the evaluation of a config asks of its data."""
    mapper = OmegaConf.select(cfg, "dataloader.train.mapper", default={})
    classes = OmegaConf.select(cfg, "model.roi_heads.num_classes", default=0)
    return Demand(
        train=dataset_names(cfg, ("train",)) if train else (),
        test=dataset_names(cfg, ("test",)),
        sizes=DEFAULT_SIZES,
        # whose evaluator measures them, if it has a head for them
        masks=OmegaConf.select(cfg, "model.roi_heads.mask_head", default=None) is not None,
        mask_format=mapper.get("instance_mask_format", "polygon") if train else "",
        classes=classes if isinstance(classes, int) else 0,
        classes_key="model.roi_heads.num_classes",
    )


def fixed_values(cfg: DictConfig) -> dict[str, Any]:
    """What a resumed run must not change, by flat key, as it is read from config.yaml."""
    values = flat(read_yaml(as_yaml(cfg), "The config", objects=True))
    fixed = {key: value for key, value in values.items() if is_fixed(key)}
    # a value elsewhere that the model takes over by its name
    names = {name for value in fixed.values() if isinstance(value, str) for name in _REFERENCE.findall(value)}
    return fixed | {name: values[name] for name in names if name in values}


def call_defaults(cfg: DictConfig) -> dict[str, Any]:
    """The defaults of all arguments of the model's calls, and of `train`, by flat key."""
    of_train: Any = OmegaConf.to_container(train_defaults(), resolve=False)
    defaults = flat(of_train, "train.")
    nodes: list[tuple[str, Any]] = [("model", OmegaConf.to_container(cfg.model, resolve=False))]
    while nodes:
        prefix, node = nodes.pop()
        nodes += [(f"{prefix}.{name}", value) for name, value in node.items() if isinstance(value, dict)]
        try:
            target = node["_target_"]
            arguments = inspect.signature(locate(target) if isinstance(target, str) else target).parameters
        except (KeyError, ImportError, TypeError, ValueError):
            continue
        given = {
            name: argument.default for name, argument in arguments.items() if argument.default is not argument.empty
        }
        defaults |= {f"{prefix}.{name}": default for name, default in given.items()}
    return defaults


def as_yaml(cfg: DictConfig) -> str:
    """The config as LazyConfig.save writes it: calls by name, objects as tags, and what YAML cannot hold as a text.

    Keys keep their order, unlike there: the parts of a model are built in it, and an optimizer's state goes by it.
    """
    text = yaml.dump(
        _by_name(cfg), Dumper=_Dumper, default_flow_style=None, allow_unicode=True, width=9999, sort_keys=False
    )
    return str(text)


class _Dumper(yaml.Dumper):
    def represent_object(self, data: Any) -> yaml.Node:
        try:
            return super().represent_object(data)
        except (TypeError, yaml.YAMLError):
            return self.represent_str(f"a {type(data).__module__}.{type(data).__qualname__}")


# not in a class body, where the base class' own function would stay registered
_Dumper.add_multi_representer(object, _Dumper.represent_object)


def _by_name(value: Any) -> Any:
    """Plain dictionaries with the names of what is called."""
    value = OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
    if isinstance(value, list):
        return [_by_name(entry) for entry in value]
    if isinstance(value, dict):
        named = {key: _by_name(entry) for key, entry in value.items()}
        target = named.get("_target_")
        return named | {"_target_": _convert_target_to_string(target)} if callable(target) else named
    return value
