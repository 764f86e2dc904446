"""Repairs for known faults of the packages we stand on. Each tests for its fault and leaves a healthy build alone.

1. facebookresearch/detectron2#5436. Builds since 19 Dec 2024 import `deeplearning.projects.cityscapesApi
   .cityscapesscripts`, a path that exists only inside Meta, so Cityscapes neither loads nor evaluates. The name becomes
   an alias of the installed `cityscapesscripts`.
2. mcordts/cityscapesScripts#196. Its evaluators call `np.in1d`, which numpy 2.4 removed. They get a view of numpy
   that has it.
3. cityscapesScripts 2.3.0 dumps its raw matches as `matches.json` into the working directory whatever its arguments
   say, and from numpy 2.3 on fails to serialise them (`'numpy.int64' object has no attribute '__dict__'`). Nothing
   reads the file: it is no longer written. The scores do not depend on it.
4. cityscapesScripts 2.3.0 fails with an IndexError where a class has instances, but all of its predictions lie on
   ignored pixels. Such a class gets the AP 0, as one without predictions does.
5. facebookresearch/detectron2#3712. Detectron2's Cityscapes loader leaves out every object with the key "deleted",
   also those with `"deleted": 0`, which Cityscapes' label tool writes to all that it saves. The loader gets the objects
   as `gan_plugin.data.cityscapes` reads them.

Below them stand-ins for what PyTorch has learnt since 2.1, the oldest release that the package is meant for; with a
newer one they are PyTorch's own. And modules of ours that configs of earlier runs call by a former name are found.

Nothing is imported before its user imports it.
"""

import importlib
import logging
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

INTERNAL_PARENT = "deeplearning.projects.cityscapesApi"
INTERNAL_SCRIPTS = f"{INTERNAL_PARENT}.cityscapesscripts"
_PARENTS = ("deeplearning", "deeplearning.projects", INTERNAL_PARENT)
_DETECTRON2_USERS = ("data/datasets/cityscapes.py", "evaluation/cityscapes_evaluation.py")

EVALUATORS = (
    "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling",
    "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling",
)
LOADER = "detectron2.data.datasets.cityscapes"
_MATCHES_FILE = "matches.json"

# what a saved LazyConfig, or a project's own, may still say, and where that is now
MOVED = {
    "gan_plugin.data.box_only": "gan_plugin.data.mappers",
    "gan_plugin.data.checks": "gan_plugin.data.mappers",
    "gan_plugin.engine.lazy_loaders": "gan_plugin.engine.train_loader",
    "gan_plugin.layers.multi_level_prroi_pool": "gan_plugin.layers.prroi_pool",
    "gan_plugin.modeling.adaptive_augment": "gan_plugin.modeling.stability",
    "gan_plugin.modeling.augment": "gan_plugin.modeling.presenters",
    "gan_plugin.modeling.balance": "gan_plugin.modeling.stability",
    "gan_plugin.modeling.gate": "gan_plugin.modeling.stability",
    "gan_plugin.modeling.labels": "gan_plugin.modeling.stability",
    "gan_plugin.modeling.losses": "gan_plugin.modeling.objectives",
    "gan_plugin.modeling.mask_memory": "gan_plugin.modeling.unpaired",
    "gan_plugin.modeling.mask_sampling": "gan_plugin.modeling.samples",
    "gan_plugin.modeling.regularizers": "gan_plugin.modeling.stability",
}


def apply() -> None:
    """Make the repairs that this environment needs; a second call changes nothing.

    Call it in every process, spawned workers too: importing `gan_plugin` does.
    """
    if _detectron2_wants_internal_scripts() and not _exists(INTERNAL_PARENT):
        _install(_InternalScriptsFinder())
    _install(_RepairingFinder())
    _install(_MovedFinder())
    for name in (*EVALUATORS, LOADER):
        if name in sys.modules:
            repair(sys.modules[name])


def _install(finder: MetaPathFinder) -> None:
    if not any(type(installed) is type(finder) for installed in sys.meta_path):
        # in front, because the path finder would load an alias's submodule a second time under the alias's name
        sys.meta_path.insert(0, finder)


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _detectron2_wants_internal_scripts() -> bool:
    """Whether the installed Detectron2 has fault 1, read from its source: importing it would cost a second."""
    spec = find_spec("detectron2")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    sources = [Path(folder, user) for folder in folders for user in _DETECTRON2_USERS]
    return any(INTERNAL_SCRIPTS in source.read_text(encoding="utf-8") for source in sources if source.is_file())


class _EmptyPackage(Loader):
    def exec_module(self, module: ModuleType) -> None:
        pass


class _Alias(Loader):
    """Loads a module by putting another, already importable one under its name."""

    def __init__(self, target: str) -> None:
        self.target = target

    def exec_module(self, module: ModuleType) -> None:
        # The import system returns what sys.modules holds afterwards; the placeholder is dropped, and the real module
        # keeps its own name and spec.
        sys.modules[module.__name__] = importlib.import_module(self.target)


class _InternalScriptsFinder(MetaPathFinder):
    """Maps Meta's internal name of cityscapesScripts, and of every module in it, to the installed one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in _PARENTS:
            # a user's own package called `deeplearning` stays what it is
            real = PathFinder.find_spec(fullname, path)
            return real or spec_from_loader(fullname, _EmptyPackage(), is_package=True)
        if fullname == INTERNAL_SCRIPTS or fullname.startswith(f"{INTERNAL_SCRIPTS}."):
            return spec_from_loader(fullname, _Alias(fullname.removeprefix(f"{INTERNAL_PARENT}.")))
        return None


class _MovedFinder(MetaPathFinder):
    """Maps the former name of a module of ours to the one that it has now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_loader(fullname, _Alias(MOVED[fullname])) if fullname in MOVED else None


def present_name(name: str) -> str:
    """The full name that an object of ours has now, given the one that it had in any version."""
    module, _, leaf = name.rpartition(".")
    return f"{MOVED[module]}.{leaf}" if module in MOVED else name


class _RepairingFinder(MetaPathFinder):
    """Repairs cityscapesScripts' evaluators and Detectron2's loader as they are imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != LOADER and fullname not in EVALUATORS:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _RepairingLoader(spec.loader)
        return spec


class _RepairingLoader(Loader):
    """Runs another loader, then repairs what it loaded and leaves no trace of itself in the module."""

    def __init__(self, inner: Loader) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.inner
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        self.inner.exec_module(module)
        repair(module)


def repair(module: Any) -> None:
    """Repair faults 2 to 5 in one of the EVALUATORS or in the LOADER, where it has them."""
    if module.__name__ == LOADER:
        module.json = _PolygonReader("json")
    else:
        repair_evaluator(module)


def repair_evaluator(module: Any) -> None:
    """Repair faults 2 to 4 in one of the EVALUATORS, where it has them.

    Args:
        module: the imported module; its globals `np` and `writeDict2JSON` are replaced if need be.
    """
    sums_scores = hasattr(module, "evaluateMatches") and "cumsum" in module.evaluateMatches.__code__.co_names
    if sums_scores or not hasattr(module.np, "in1d"):
        module.np = _NumpyView("numpy")
    code = module.evaluateImgLists.__code__
    if _MATCHES_FILE in code.co_consts and not isinstance(module.writeDict2JSON, _JsonWriter):
        module.writeDict2JSON = _JsonWriter(module.writeDict2JSON)


class _PolygonReader(ModuleType):
    """What Detectron2's loader has for the module json: it reads polygon files, and nothing else."""

    @staticmethod
    def load(file: IO[str]) -> dict[str, Any]:
        """The content of an opened polygon file with its sound objects; a warning names what was left out."""
        from gan_plugin.data.cityscapes import parse_polygons

        # as bytes, which are in JSON's encoding, not in that of this machine
        content = getattr(file, "buffer", file).read()
        content = content.encode() if isinstance(content, str) else content
        read = parse_polygons(content, getattr(file, "name", "polygons.json"))
        if left_out := [problem.place for problem in read.problems if problem.entry]:
            logging.getLogger(__name__).warning("Left out: %s.", "; ".join(left_out))
        return {"imgHeight": read.height, "imgWidth": read.width, "objects": read.objects}


class _NumpyView(ModuleType):
    """numpy, plus the `in1d` that numpy 2.4 removed, and with a `cumsum` that always has a last element."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def in1d(values: Any, test_values: Any, assume_unique: bool = False, invert: bool = False) -> np.ndarray:
        """Whether each of `values` is among `test_values`: a flat boolean array."""
        return np.isin(values, test_values, assume_unique=assume_unique, invert=invert).ravel()

    @staticmethod
    def cumsum(values: Any) -> np.ndarray:
        """The running sums of a flat array; [0] for an empty one."""
        return np.cumsum(values) if np.size(values) else np.zeros(1, int)


class _JsonWriter:
    """cityscapesScripts' JSON writer, deaf to requests for `matches.json` in the working directory."""

    def __init__(self, write: Any) -> None:
        self.write = write

    def __call__(self, content: dict[str, Any], file_name: str) -> None:
        if file_name != _MATCHES_FILE:
            self.write(content, file_name)


def grad_scaler(device: str, *, enabled: bool) -> Any:
    """`torch.amp.GradScaler`, which came with PyTorch 2.3; an older one scales losses on a GPU only."""
    import torch

    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled and device == "cuda")


def is_autocast_enabled(device: str) -> bool:
    """Whether mixed precision is on for a type of device ("cpu", "cuda"); PyTorch asks by name since 2.4."""
    import torch

    try:
        return torch.is_autocast_enabled(device)
    except TypeError:
        return torch.is_autocast_cpu_enabled() if device == "cpu" else torch.is_autocast_enabled()


def total_norm(tensors: Sequence["torch.Tensor"]) -> "torch.Tensor":
    """The Euclidean norm of all numbers of `tensors`, at least one: PyTorch's `get_total_norm`, which came with 2.6."""
    import torch

    if hasattr(torch.nn.utils, "get_total_norm"):
        return torch.nn.utils.get_total_norm(tensors)
    norms = [torch.linalg.vector_norm(tensor) for tensor in tensors]
    return torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))


def fused_adam(
    kind: type["torch.optim.Adam"], parameters: Iterable["torch.nn.Parameter"], **options: Any
) -> "torch.optim.Adam":
    """Adam or AdamW with one kernel for all numbers of a weight, which is faster; on a CPU only from PyTorch 2.4 on."""
    parameters = list(parameters)
    try:
        return kind(parameters, fused=True, **options)
    except RuntimeError:
        return kind(parameters, **options)
