"""The generator of a training checkpoint as a model of stock Detectron2: its weights, its config, its trace."""

import importlib
import inspect
import os
import pickle
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import safetensors.torch
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.export import TracingAdapter
from detectron2.modeling import build_model
from detectron2.projects.point_rend import add_pointrend_config
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import DictConfig
from torch import nn

from gan_plugin.config import add_gan_config
from gan_plugin.config_files import read_yaml
from gan_plugin.errors import UserError, as_user_error, first_line
from gan_plugin.files import UnsafeCheckpointError, check_exists, read_safely, write_whole
from gan_plugin.modeling import AdversarialModel, TimmBackbone
from gan_plugin.modeling.timm_backbone import BUILDER

from .checkpoint import classes_as_text, classes_in, named_classes, with_versions
from .setup import merge_file

SUFFIXES = (".pth", ".safetensors")
# what inference does not need: every other weight has GeneralizedRCNN's name
ADVERSARY_PREFIX = "adversaries."
# the plugin's components and the ones of Detectron2 whose inference and parameters they share
STOCK_META_ARCHITECTURES = {"AdversarialRCNN": "GeneralizedRCNN"}
STOCK_MASK_HEADS = {
    "AdversarialMaskHead": "MaskRCNNConvUpsampleHead",
    "AdversarialPointRendMaskHead": "PointRendMaskHead",
}
STOCK_ROI_HEADS = {"AdversarialROIHeads": "StandardROIHeads", "AdversarialCascadeROIHeads": "CascadeROIHeads"}

_PUBLIC = ("torch", "torchvision", "detectron2", "fvcore", "timm")
_UNREADABLE = (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)


def read_generator(path: Path, *, average: bool = False, allow_pickle: bool = False) -> dict[str, torch.Tensor]:
    """The weights alone of `read_named_generator`."""
    return read_named_generator(path, average=average, allow_pickle=allow_pickle)[0]


def read_named_generator(
    path: Path, *, average: bool = False, allow_pickle: bool = False
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The generator in a checkpoint.

    Args:
        path: a `.pth` of a training run, read without running any code in it, or a model zoo's `.pkl`.
        average: take the moving average that GeneratorEMA keeps in place of the last weights.
        allow_pickle: read a `.pkl`, or a `.pth` with objects, which RUNS WHATEVER CODE THE FILE HOLDS.

    Returns:
        (its weights on the CPU under the names that GeneralizedRCNN gives them, the names of its classes or []).

    Raises:
        UserError: the file is missing, cannot be read in this way, is no checkpoint, or has no average.
    """
    check_exists(path, "The checkpoint", "name a file such as OUTPUT_DIR/model_final.pth")
    state = _read_pickle(path, allow_pickle) if path.suffix == ".pkl" else _read_torch(path, allow_pickle)
    weights = state.get("model", state) if isinstance(state, dict) else None
    if not is_state_dict(weights):
        raise UserError(f"{path} is not a checkpoint: it holds no dictionary of weights; name a model_*.pth of a run.")
    names = [name for name in weights if not name.startswith(ADVERSARY_PREFIX) and not _is_constant(name)]
    if not average:
        return with_versions({name: _compact(weights[name]) for name in names}, weights), classes_in(state)
    averages = find_average(state)
    if not averages or any(name not in averages for name in names):
        raise UserError(
            f"{path} holds no moving average of the generator; leave --ema away, export OUTPUT_DIR/model_final_ema.pth "
            "without it, or train with MODEL.GAN.EMA.DECAY above 0."
        )
    return with_versions({name: _compact(averages[name]) for name in names}, weights), classes_in(state)


def _read_torch(path: Path, allow_objects: bool) -> Any:
    try:
        return read_safely(path)
    except UnsafeCheckpointError:
        if not allow_objects:
            raise
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # its code may fail in any way
        raise UserError(f"{path} cannot be restored here ({type(error).__name__}: {first_line(error)}).") from error


def _read_pickle(path: Path, allowed: bool) -> Any:
    if not allowed:
        raise UserError(
            f"{path} is a pickle, and reading a pickle runs whatever code its author put there; add --allow-pickle "
            "only if you trust where it comes from."
        )
    with as_user_error(
        f"{path} is not a pickled checkpoint", "name another file", OSError, ImportError, IndexError, *_UNREADABLE
    ):
        state = DetectionCheckpointer(nn.Module())._load_file(str(path))
    if state.get("matching_heuristics"):
        raise UserError(f"{path} has Caffe2's names of weights; name a file of Detectron2's own model zoo.")
    return {**state, "model": {name: torch.as_tensor(value) for name, value in state["model"].items()}}


def is_state_dict(weights: Any) -> TypeGuard[dict[str, torch.Tensor]]:
    """Whether `weights` is a dictionary of named tensors with at least one."""
    return (
        isinstance(weights, dict)
        and bool(weights)
        and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items())
    )


def _is_constant(name: str) -> bool:
    # Old checkpoints hold what Detectron2 computes from the config; current models would call these names unexpected.
    return name in ("pixel_mean", "pixel_std") or "anchor_generator.cell_anchors" in name


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    # A view would drag its whole storage into the file, and safetensors refuses what is shared or not contiguous.
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def find_average(state: dict[str, Any]) -> dict[str, torch.Tensor] | None:
    """The generator's moving average in a training checkpoint; None if it holds none."""
    node: Any = state
    for key in ("trainer", "hooks", "GeneratorEMA", "average"):
        node = node.get(key) if isinstance(node, dict) else None
    return node if is_state_dict(node) else None


def write_weights(weights: dict[str, torch.Tensor], out: Path, classes: Sequence[str] = ()) -> None:
    """Write `weights` as `out`: a `.pth` that DetectionCheckpointer loads, or a `.safetensors` of bare tensors.

    Args:
        weights: of `read_generator`.
        out: the file.
        classes: the names of the classes, which `trained_classes` finds in either form.

    Raises:
        UserError: the file cannot be written; nothing of it is left then.
    """
    if out.suffix == ".safetensors":
        content = safetensors.torch.save(weights, metadata={"format": "pt", **classes_as_text(classes)})
        write_whole(out, content)
    else:
        write_whole(out, lambda file: torch.save({"model": weights, **named_classes(classes)}, file))


def import_modules(names: Sequence[str]) -> None:
    """Import what registers a project's components, from the working directory too, as `python -m` does.

    Raises:
        UserError: there is no such module, or it cannot be imported.
    """
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a module is code, which may fail in any way
            raise UserError(
                f"--import {name} failed ({type(error).__name__}: {first_line(error)}); name a module as in `import "
                "project.modeling`, and call this where that import works."
            ) from error


def stock_config(path: Path, modules: Sequence[str] = ()) -> CfgNode:
    """The config file of a run as Detectron2 understands it without the plugin.

    Keys that `get_cfg()` does not know are left out, but for those of a project whose modules are named, and the
    plugin's components become the ones they extend.

    Args:
        path: a YAML file; tags that would run Python code are refused.
        modules: of the project, imported already.

    Raises:
        UserError: the file is missing, is not YAML, or has a value that Detectron2 refuses.
    """
    check_exists(path, "The config file", "name the run's config.yaml with --config-file")
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    merge_file(cfg, str(path))
    stock = get_cfg()
    if cfg.MODEL.BACKBONE.NAME == BUILDER:
        # the one component of ours that inference needs, with its keys; what is exported holds its weights
        default = get_cfg()
        add_gan_config(default)
        stock.MODEL.TIMM = default.MODEL.TIMM
        cfg.MODEL.TIMM.PRETRAINED = ""
    if modules:
        ours = get_cfg()
        add_pointrend_config(ours)
        if "PointRend" not in cfg.MODEL.ROI_MASK_HEAD.NAME:
            _leave_out(cfg, ours, stock, whatever=False)
        add_gan_config(ours)
        _leave_out(cfg, ours, stock, whatever=True)
        stock = cfg
    else:
        if "PointRend" in cfg.MODEL.ROI_MASK_HEAD.NAME:
            add_pointrend_config(stock)
        stock.merge_from_other_cfg(_common(cfg, stock))
    model = stock.MODEL
    model.META_ARCHITECTURE = STOCK_META_ARCHITECTURES.get(model.META_ARCHITECTURE, model.META_ARCHITECTURE)
    model.ROI_HEADS.NAME = STOCK_ROI_HEADS.get(model.ROI_HEADS.NAME, model.ROI_HEADS.NAME)
    model.ROI_MASK_HEAD.NAME = STOCK_MASK_HEADS.get(model.ROI_MASK_HEAD.NAME, model.ROI_MASK_HEAD.NAME)
    return stock


def _leave_out(cfg: CfgNode, added: CfgNode, stock: CfgNode, whatever: bool) -> None:
    """Take out of `cfg` what `added` has and `stock` has not, `whatever` its value or if it has the default one."""
    for key in [key for key in added if key in cfg]:
        if key not in stock:
            if whatever or cfg[key] == added[key]:
                del cfg[key]
        elif isinstance(stock[key], CfgNode) and isinstance(cfg[key], CfgNode):
            _leave_out(cfg[key], added[key], stock[key], whatever)


def _common(cfg: CfgNode, known: CfgNode) -> CfgNode:
    kept = CfgNode()
    for key in known:
        both = isinstance(known[key], CfgNode) and isinstance(cfg[key], CfgNode)
        kept[key] = _common(cfg[key], known[key]) if both else cfg[key]
    return kept


def build_stock_model(cfg: CfgNode, weights: dict[str, torch.Tensor], modules: Sequence[str] = ()) -> nn.Module:
    """The model that Detectron2 builds from `cfg` without the plugin, on the CPU, with exactly `weights`.

    Args:
        cfg: of `stock_config`.
        weights: of `read_generator`.
        modules: of the project that has more components than Detectron2.

    Returns:
        The model, for inference only.

    Raises:
        UserError: it cannot be built, or its weights are not these in name and shape.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    try:
        model = build_model(cfg)
    except (KeyError, ValueError, AssertionError, TypeError, AttributeError) as error:
        raise UserError(
            f"Detectron2 alone cannot build the model of this config: {first_line(error)}. Name what registers its "
            "components with --import MODULE, or leave the check out with --no-check."
        ) from error
    return with_weights(model, weights, modules)


def with_weights(model: nn.Module, weights: dict[str, torch.Tensor], modules: Sequence[str] = ()) -> nn.Module:
    """`model` with exactly `weights`, for inference only; errors as in `build_stock_model`."""
    known = {*_PUBLIC, *(name.split(".")[0] for name in modules)}
    foreign = {type(part) for part in model.modules() if type(part).__module__.split(".")[0] not in known}
    # with modules, only parts of this plugin would be missed where it is not installed
    foreign = {kind for kind in foreign if not modules or kind.__module__.split(".")[0] == "gan_plugin"} - {
        TimmBackbone
    }
    if foreign:
        names = ", ".join(sorted(kind.__name__ for kind in foreign))
        raise UserError(
            f"The config uses {names}, which stock Detectron2 does not have; name the project's module with --import "
            "MODULE, or leave the check out with --no-check."
        )
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"The checkpoint does not fit its config ({reason}); name the run's config with --config-file."
        ) from error
    return model.requires_grad_(False).eval()


def is_lazy(path: Path) -> bool:
    """Whether a config file is a LazyConfig, in Python or as a run saves it."""
    if path.suffix == ".py":
        return True
    node = read_yaml(path.read_bytes(), f"The config file {path}", objects=True) if path.is_file() else None
    return isinstance(node, dict) and isinstance(node.get("model"), dict) and "_target_" in node["model"]


def plain_lazy_config(path: Path) -> DictConfig:
    """The model of a LazyConfig without the game; the file is a program, and runs.

    Raises:
        UserError: it fails.
    """
    try:
        node = LazyConfig.load(str(path)).model
    except Exception as error:  # a config is code, which may fail in any way
        raise UserError(f"The config file {path} is wrong: {type(error).__name__}: {first_line(error)}.") from error
    return DictConfig({"model": plain_model(node)}, flags={"allow_objects": True})


def plain_model(node: DictConfig) -> DictConfig:
    """The node of a LazyConfig's model, changed to be without the game."""
    target = node._target_ if isinstance(node._target_, str) else _convert_target_to_string(node._target_)
    if "adversaries" in node:
        ours = set(inspect.signature(AdversarialModel).parameters) - {"args", "kwargs"}
        plain = node.pop("architecture", None)
        node._target_ = plain or f"detectron2.modeling.{STOCK_META_ARCHITECTURES[target.rpartition('.')[2]]}"
        for name in ours & set(node):
            del node[name]
    return node


def build_lazy_model(cfg: DictConfig, weights: dict[str, torch.Tensor], modules: Sequence[str] = ()) -> nn.Module:
    """As `build_stock_model`, of `plain_lazy_config`."""
    try:
        model = instantiate(cfg.model)
    except Exception as error:  # whatever the config calls
        raise UserError(
            f"The model of this config cannot be built: {type(error).__name__}: {first_line(error)}; leave the check "
            "out with --no-check."
        ) from error
    return with_weights(model, weights, modules)


def trace_model(model: nn.Module, height: int, width: int) -> torch.jit.ScriptModule:
    """A TorchScript module that does what `model` does for one image of `height` x `width` pixels.

    Its input is the image as a float32 tensor (3, height, width) in the config's channel order and 0..255, already
    resized as for inference. It returns, for N detections in pixels of that image: boxes (N, 4) as x0, y0, x1, y1;
    classes (N,), int64; with a mask head, masks (N, 1, 28, 28), probabilities within each box; scores (N,).

    Above 1000 proposals an image, torchvision's NMS uses another formula in a trace than in eager mode on a CPU, so
    the results are then equal up to rounding.

    Args:
        model: a GeneralizedRCNN on the CPU, in evaluation mode, whose parameters require no gradient.

    Raises:
        UserError: the model cannot be traced, or the traced module does not agree with it on a second image.
    """
    example, other = (_noise(seed, height, width) for seed in (0, 1))
    adapter = TracingAdapter(model, [{"image": example}], _detect)
    try:
        with warnings.catch_warnings():
            # about asserts and constants that a trace leaves out; the second image below is the judge of that
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(adapter, (example,), check_trace=False)
            agree = all(_equal(a, b) for a, b in zip(traced(other), adapter(other), strict=True))
    except (RuntimeError, ValueError, AssertionError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"This model cannot be traced at {height}x{width} ({reason}); leave --torchscript away."
        ) from error
    if not agree:
        raise UserError(f"The model traced at {height}x{width} does not repeat its own results; try another size.")
    return traced


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-3)


def write_torchscript(module: torch.jit.ScriptModule, out: Path) -> None:
    """Write `module` as `out`, whole or not at all, for `torch.jit.load`; UserError if that is impossible."""
    write_whole(out, partial(torch.jit.save, module))


def _detect(model: Any, inputs: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    # Pasting masks into the image depends on each box in a way that a trace cannot record.
    return model.inference(inputs, do_postprocess=False)[0].get_fields()


def _noise(seed: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 255
