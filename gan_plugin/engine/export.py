"""The generator of a training checkpoint as a model of stock Detectron2: its weights and its config."""

import pickle
from pathlib import Path
from typing import Any, TypeGuard

import safetensors.torch
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.projects.point_rend import add_pointrend_config
from torch import nn

from gan_plugin.errors import UserError
from gan_plugin.files import first_line, write_whole

from .checkpoint import UnsafeCheckpointError, read_safely
from .setup import merge_file

SUFFIXES = (".pth", ".safetensors")
ADVICE = "Choose another place or free some disk space."
# what inference does not need: every other weight has GeneralizedRCNN's name
ADVERSARY_PREFIX = "adversaries."
# the plugin's components and the ones of Detectron2 whose inference and parameters they share
STOCK_META_ARCHITECTURES = {"AdversarialRCNN": "GeneralizedRCNN"}
STOCK_MASK_HEADS = {
    "AdversarialMaskHead": "MaskRCNNConvUpsampleHead",
    "AdversarialPointRendMaskHead": "PointRendMaskHead",
}
STOCK_ROI_HEADS = {"AdversarialROIHeads": "StandardROIHeads", "AdversarialCascadeROIHeads": "CascadeROIHeads"}

_UNREADABLE = (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)


def read_generator(path: Path, *, average: bool = False, allow_pickle: bool = False) -> dict[str, torch.Tensor]:
    """The generator's weights in a checkpoint, on the CPU, under the names that GeneralizedRCNN gives them.

    Args:
        path: a `.pth` of a training run, read without running any code in it, or a model zoo's `.pkl`.
        average: take the moving average that GeneratorEMA keeps in place of the last weights.
        allow_pickle: read a `.pkl`, or a `.pth` with objects, which RUNS WHATEVER CODE THE FILE HOLDS.

    Raises:
        UserError: the file is missing, cannot be read in this way, is no checkpoint, or has no average.
    """
    if not path.is_file():
        raise UserError(f"The checkpoint {path} does not exist; name a file such as OUTPUT_DIR/model_final.pth.")
    state = _read_pickle(path, allow_pickle) if path.suffix == ".pkl" else _read_torch(path, allow_pickle)
    weights = state.get("model", state) if isinstance(state, dict) else None
    if not is_state_dict(weights):
        raise UserError(f"{path} is not a checkpoint: it holds no dictionary of weights; name a model_*.pth of a run.")
    names = [name for name in weights if not name.startswith(ADVERSARY_PREFIX) and not _is_constant(name)]
    if not average:
        return {name: _compact(weights[name]) for name in names}
    averages = find_average(state)
    if not averages or any(name not in averages for name in names):
        raise UserError(
            f"{path} holds no moving average of the generator; leave --ema away, export OUTPUT_DIR/model_final_ema.pth "
            "without it, or train with MODEL.GAN.EMA.DECAY above 0."
        )
    return {name: _compact(averages[name]) for name in names}


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
    try:
        state = DetectionCheckpointer(nn.Module())._load_file(str(path))
    except (OSError, ImportError, IndexError, *_UNREADABLE) as error:
        raise UserError(f"{path} is not a pickled checkpoint ({type(error).__name__}); name another file.") from error
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


def write_weights(weights: dict[str, torch.Tensor], out: Path) -> None:
    """Write `weights` as `out`: a `.pth` that DetectionCheckpointer loads, or a `.safetensors` of bare tensors.

    Raises:
        UserError: the file cannot be written; nothing of it is left then.
    """
    if out.suffix == ".safetensors":
        content = safetensors.torch.save(weights, metadata={"format": "pt"})
        write_whole(out, lambda file: file.write(content), ADVICE)
    else:
        write_whole(out, lambda file: torch.save({"model": weights}, file), ADVICE)


def stock_config(path: Path) -> CfgNode:
    """The config file of a run as stock Detectron2 understands it.

    Keys that `get_cfg()` does not know are left out, and the plugin's components become the ones they extend.

    Args:
        path: a YAML file; tags that would run Python code are refused.

    Raises:
        UserError: the file is missing, is not YAML, or has a value that Detectron2 refuses.
    """
    if not path.is_file():
        raise UserError(f"The config file {path} does not exist; name the run's config.yaml with --config-file.")
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    merge_file(cfg, str(path))
    stock = get_cfg()
    if "PointRend" in cfg.MODEL.ROI_MASK_HEAD.NAME:
        add_pointrend_config(stock)
    stock.merge_from_other_cfg(_common(cfg, stock))
    model = stock.MODEL
    model.META_ARCHITECTURE = STOCK_META_ARCHITECTURES.get(model.META_ARCHITECTURE, model.META_ARCHITECTURE)
    model.ROI_HEADS.NAME = STOCK_ROI_HEADS.get(model.ROI_HEADS.NAME, model.ROI_HEADS.NAME)
    model.ROI_MASK_HEAD.NAME = STOCK_MASK_HEADS.get(model.ROI_MASK_HEAD.NAME, model.ROI_MASK_HEAD.NAME)
    return stock


def _common(cfg: CfgNode, known: CfgNode) -> CfgNode:
    kept = CfgNode()
    for key in known:
        both = isinstance(known[key], CfgNode) and isinstance(cfg[key], CfgNode)
        kept[key] = _common(cfg[key], known[key]) if both else cfg[key]
    return kept


def build_stock_model(cfg: CfgNode, weights: dict[str, torch.Tensor]) -> nn.Module:
    """The model that stock Detectron2 builds from `cfg`, on the CPU, with exactly `weights`, for inference only.

    Raises:
        UserError: Detectron2 alone cannot build it, or its weights are not these in name and shape.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    try:
        model = build_model(cfg)
    except (KeyError, ValueError, AssertionError, TypeError) as error:
        raise UserError(f"Detectron2 alone cannot build the model of this config: {error}.") from error
    foreign = {type(module) for module in model.modules() if not _is_public(type(module).__module__)}
    if foreign:
        names = ", ".join(sorted(kind.__name__ for kind in foreign))
        raise UserError(f"The config uses {names}, which stock Detectron2 does not have; it cannot be exported.")
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"The checkpoint does not fit its config ({reason}); name the run's config with --config-file."
        ) from error
    return model.requires_grad_(False).eval()


def _is_public(module: str) -> bool:
    return module.split(".")[0] in ("torch", "torchvision", "detectron2", "fvcore")
