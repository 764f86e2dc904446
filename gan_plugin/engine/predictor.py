"""A trained model for pictures of one's own: any config, any weights, pixels in, instances out."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import safetensors
import safetensors.torch
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances
from omegaconf import OmegaConf
from torch import nn

from gan_plugin.data.builtin import register_of
from gan_plugin.errors import UserError, as_user_error, first_line

from .checkpoint import trained_classes
from .export import import_modules, is_lazy, plain_model, read_named_generator, stock_config
from .lazy_config import dataset_names, load_lazy_config
from .setup import load_config, merge_options


@dataclass
class Predictor:
    """A model and what it needs to know of a picture.

    Attributes:
        model: for inference, on its device.
        augmentations: Detectron2's, of the test set's pictures.
        image_format: the order of the model's channels, "RGB" or "BGR".
        classes: the names of its classes; empty if nobody says.
        category_ids: of the classes in COCO's JSON files, where their data set is known; else they count from 1.
    """

    model: nn.Module
    augmentations: Sequence[T.Augmentation]
    image_format: str
    classes: list[str]
    category_ids: list[int]

    @property
    def metadata(self) -> Metadata:
        """The classes as Detectron2's Visualizer takes them."""
        return Metadata(thing_classes=self.classes)

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> Instances:
        """What the model finds in a picture.

        Args:
            pixels: (H, W, 3) uint8 RGB.

        Returns:
            Instances of the picture's size on the CPU: pred_boxes in pixels, scores in [0, 1], pred_classes from 0,
            and (H, W) bool pred_masks of a model that has masks.

        Raises:
            UserError: the model finds no instances but something else, such as a panoptic one.
        """
        height, width = pixels.shape[:2]
        ordered = pixels[:, :, ::-1] if self.image_format == "BGR" else pixels
        given = T.AugInput(ordered)
        T.AugmentationList(self.augmentations)(given)
        image = torch.as_tensor(np.ascontiguousarray(given.image.astype("float32").transpose(2, 0, 1)))
        (found,) = self.model([{"image": image, "height": height, "width": width}])
        if "instances" not in found:
            raise UserError(f"The model finds {', '.join(found) or 'nothing'}, not instances; name a config of one.")
        return found["instances"].to("cpu")

    def category_id(self, label: int) -> int:
        """The id of a class, counted from 0, in COCO's JSON files."""
        return self.category_ids[label] if label < len(self.category_ids) else label + 1


def load_predictor(
    config_file: str,
    weights: str,
    opts: Sequence[str] = (),
    *,
    modules: Sequence[str] = (),
    allow_pickle: bool = False,
) -> Predictor:
    """The model of a config with trained weights, without its adversary.

    Args:
        config_file: YAML of the plugin or of Detectron2, or a LazyConfig; also the config.yaml of a run or an export.
        weights: a `.pth` of a run or of an export, a `.safetensors`, or a model zoo's `.pkl`.
        opts: changes of the config, KEY VALUE pairs or key=value for a LazyConfig.
        modules: of a project that registers components, to be imported first.
        allow_pickle: see `read_named_generator`.

    Raises:
        UserError: config or weights are missing or broken, or the weights are of another architecture.
    """
    import_modules(modules)
    state, classes = _read_weights(Path(weights), allow_pickle)
    args = argparse.Namespace(config_file=config_file, opts=list(opts), weights=weights)
    if is_lazy(Path(config_file)):
        predictor, names = _of_lazy(args)
    else:
        predictor, names = _of_yaml(args, modules)
    _fill(predictor.model, state, weights, config_file)
    predictor.model.requires_grad_(False).eval()
    predictor.classes = classes
    for name in names:
        _name_classes(predictor, name)
    return predictor


def _of_yaml(args: argparse.Namespace, modules: Sequence[str]) -> tuple[Predictor, Sequence[str]]:
    if modules:
        cfg = stock_config(Path(args.config_file), modules)
        merge_options(cfg, "", args.opts)
    else:
        cfg = load_config(args)
        cfg.defrost()
        cfg.MODEL.GAN.ENABLED = False
        # so that no backbone looks for weights of its own; these are read already, see `_fill`
        cfg.MODEL.WEIGHTS = args.weights
        register_of(cfg)
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    sides = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    names = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]
    return Predictor(_built(cfg), [sides], cfg.INPUT.FORMAT, [], []), names


def _built(cfg: CfgNode) -> nn.Module:
    with as_user_error("The model of this config cannot be built", "name what registers it with --import", KeyError):
        # the weights come later
        return build_model(cfg)


def _of_lazy(args: argparse.Namespace) -> tuple[Predictor, Sequence[str]]:
    cfg = load_lazy_config(args)
    mapper = OmegaConf.select(cfg, "dataloader.test.mapper")
    if mapper is None:
        raise UserError(f"{args.config_file} has no dataloader.test.mapper, which says how pictures are resized.")
    try:
        model = instantiate(plain_model(cfg.model)).to(cfg.train.device)
        augmentations = instantiate(mapper.augmentations)
        image_format = mapper.image_format
    except Exception as error:  # whatever the config calls
        raise UserError(
            f"The model of this config cannot be built: {type(error).__name__}: {first_line(error)}."
        ) from error
    return Predictor(model, augmentations, image_format, [], []), dataset_names(cfg, ("test", "train"))


def _read_weights(path: Path, allow_pickle: bool) -> tuple[dict[str, torch.Tensor], list[str]]:
    if path.suffix != ".safetensors":
        return read_named_generator(path, allow_pickle=allow_pickle)
    with as_user_error(f"The weights {path} cannot be read", "check --weights", OSError, safetensors.SafetensorError):
        return safetensors.torch.load_file(path), trained_classes(str(path))


def _fill(model: nn.Module, weights: dict[str, torch.Tensor], path: str, config_file: str) -> None:
    own = {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        raise UserError(
            f"The weights {path} are of another architecture than the model of {config_file} ({'; '.join(wrong[:2])}"
            f"{more}, of {len(own)} weights); name the config that they were trained with."
        )
    model.load_state_dict(weights, strict=False)


def _name_classes(predictor: Predictor, name: str) -> None:
    """What a data set says of the classes, as far as it is known without reading it, and nobody has said it before."""
    metadata: Any = MetadataCatalog.get(name) if name in DatasetCatalog else None
    classes = list(metadata.get("thing_classes") or ()) if metadata else []
    if classes and (not predictor.classes or predictor.classes == classes):
        predictor.classes = classes
        ids: dict[int, int] = metadata.get("thing_dataset_id_to_contiguous_id") or {}
        predictor.category_ids = predictor.category_ids or sorted(ids, key=lambda number: ids[number])
