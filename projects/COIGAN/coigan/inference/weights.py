"""A trained generator in a file: of a run's checkpoint, or exported, alone with its config."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from yacs.config import CfgNode

from coigan.config import get_cfg
from coigan.config_rules import check_config
from coigan.engine.players import build_generator
from gan_plugin.config_files import read_yaml
from gan_plugin.engine.export import find_average, is_state_dict
from gan_plugin.errors import UserError
from gan_plugin.files import read_safely, write_whole

_PREFIX = "generator."
_KIND = "coigan-generator-1"
_ADVICE = "Choose another place or free some disk space."


@dataclass(frozen=True)
class TrainedGenerator:
    """Weights with all that is needed to use them.

    Attributes:
        weights: of the generator alone, on the CPU.
        cfg: of its run.
        digest: SHA-256 of the weights: names, shapes and values in order, in whatever file they lie.
        source: the file, and whether it is the average, in words.
    """

    weights: Mapping[str, torch.Tensor]
    cfg: CfgNode
    digest: str
    source: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask channels."""
        return tuple(self.cfg.INPUT.CLASSES)

    def build(self) -> torch.nn.Module:
        """The generator on the CPU in evaluation mode, frozen.

        Raises:
            UserError: the weights do not fit the config.
        """
        generator = build_generator(self.cfg, len(self.classes))
        try:
            generator.load_state_dict(dict(self.weights), strict=True)
        except RuntimeError as error:
            raise UserError(f"{self.source} does not fit its config; name the run's own config.yaml.") from error
        # Batch statistics of what happens to be in a batch would change the picture.
        return generator.requires_grad_(False).eval()


def read_trained(path: str | Path, config: str = "", average: bool = True) -> TrainedGenerator:
    """The generator in `path`, without running any code that is in the file.

    Args:
        path: a checkpoint of a run (`model_*.pth`), or what `write_trained` wrote.
        config: the run's config.yaml; "" for the one beside a checkpoint.
        average: take the moving average where the file has one.

    Raises:
        UserError: the file or its config is missing or no generator.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"The weights {path} do not exist; name a model_*.pth of a run or an exported generator.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    state = read_safely(path)
    weights = state.get("model") if isinstance(state, dict) else None
    if not is_state_dict(weights):
        raise UserError(f"{path} holds no weights; name a model_*.pth of a run or an exported generator.")
    if state.get("kind") == _KIND:
        return _trained(weights, parse_config(state["config"], str(path)), str(path))
    source = str(path)
    if any(name.startswith(_PREFIX) for name in weights):
        averaged = find_average(state) if average else None
        if averaged:
            weights, source = averaged, f"{path} (moving average)"
        else:
            weights = {name[len(_PREFIX) :]: value for name, value in weights.items() if name.startswith(_PREFIX)}
    file = Path(config) if config else path.parent / "config.yaml"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"The config {file} cannot be read ({error.strerror}); name it with --config-file.") from error
    return _trained(weights, parse_config(text, str(file)), source)


def _read_safetensors(path: Path) -> TrainedGenerator:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        weights = safetensors.torch.load_file(str(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors; export it again.") from error
    if metadata.get("kind") != _KIND:
        raise UserError(f"{path} is no exported generator; make one with inpaint.py export.")
    return _trained(weights, parse_config(metadata["config"], str(path)), str(path))


def _trained(weights: Mapping[str, torch.Tensor], cfg: CfgNode, source: str) -> TrainedGenerator:
    if not cfg.INPUT.CLASSES:
        raise UserError(f"The config of {source} names no classes (INPUT.CLASSES); name the run's own config.yaml.")
    return TrainedGenerator(weights, cfg, digest_of(weights), source)


def parse_config(text: str, source: str) -> CfgNode:
    """The config in a run's config.yaml.

    Raises:
        UserError: it is none of COIGAN.
    """
    cfg = get_cfg()
    content = read_yaml(text, f"The config of {source}")
    try:
        cfg.merge_from_other_cfg(CfgNode(content))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"The config of {source} is none of COIGAN: {' '.join(str(error).split())}.") from error
    check_config(cfg)
    cfg.freeze()
    return cfg


def digest_of(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, sorted by name."""
    sum_ = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        sum_.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        sum_.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return sum_.hexdigest()


def write_trained(trained: TrainedGenerator, out: str | os.PathLike) -> None:
    """Write weights and config as `out`: `.safetensors` of bare tensors, or `.pth`; no optimizer, no judge.

    Raises:
        UserError: it cannot be written, or has another ending.
    """
    if not os.fspath(out).endswith((".pth", ".safetensors")):
        raise UserError(f"{os.fspath(out)} ends in neither .pth nor .safetensors; name such a file.")
    weights = {name: value.detach().clone().contiguous() for name, value in trained.weights.items()}
    config = trained.cfg.dump()
    if os.fspath(out).endswith(".safetensors"):
        content = safetensors.torch.save(weights, metadata={"format": "pt", "kind": _KIND, "config": config})
        write_whole(out, lambda file: file.write(content), _ADVICE)
    else:
        write_whole(out, lambda file: torch.save({"model": weights, "kind": _KIND, "config": config}, file), _ADVICE)
